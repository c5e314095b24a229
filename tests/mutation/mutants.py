"""Mutants: one small change of the source each, at the place of a node of its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

OTHER = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}


class Mutant(NamedTuple):
    """What is replaced by what, in which file, and the lines whose execution it changes."""

    file: str
    start: int  # bytes from the beginning of the file
    stop: int
    old: str
    new: str
    lines: tuple[int, int]

    def applied(self, source: bytes) -> bytes:
        """The source with the change."""
        return source[: self.start] + self.new.encode() + source[self.stop :]


def mutants(root: Path, file: Path) -> Iterator[Mutant]:
    """Every mutant of a file, in the order of the source."""
    source = file.read_bytes()
    begin = [0]
    for line in source.splitlines(keepends=True):
        begin.append(begin[-1] + len(line))
    for node in _nodes(ast.parse(source)):
        for new in _changes(node):
            assert node.end_lineno is not None
            assert node.end_col_offset is not None
            start = begin[node.lineno - 1] + node.col_offset
            stop = begin[node.end_lineno - 1] + node.end_col_offset
            old = " ".join(source[start:stop].decode().split())
            yield Mutant(str(file.relative_to(root)), start, stop, old, new, (node.lineno, node.end_lineno))


def _nodes(tree: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """The nodes to change: no annotations, no texts, nothing in what is raised or warned of."""
    for name, field in ast.iter_fields(tree):
        if name in ("annotation", "returns", "exc", "decorator_list"):
            continue
        for child in field if isinstance(field, list) else [field]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr):
                continue
            if isinstance(child, ast.expr | ast.stmt):
                yield child
            if not _warns(child):
                yield from _nodes(child)


def _warns(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "warn"


def _changes(node: ast.expr | ast.stmt) -> Iterator[str]:
    """What may stand in the place of a node."""
    match node:
        case ast.BinOp(left, ast.MatMult(), right):
            yield f"({ast.unparse(ast.BinOp(right, ast.MatMult(), left))})"
        case ast.BinOp(left, op, right):
            for other in OTHER.get(type(op), ()):
                yield f"({ast.unparse(ast.BinOp(left, other(), right))})"
        case ast.Compare(left, ops, comparators):
            for other in OTHER.get(type(ops[0]), ()):
                yield f"({ast.unparse(ast.Compare(left, [other(), *ops[1:]], comparators))})"
        case ast.BoolOp(op, values):
            for other in OTHER[type(op)]:
                yield f"({ast.unparse(ast.BoolOp(other(), values))})"
        case ast.UnaryOp(ast.USub() | ast.Not(), operand):
            yield f"({ast.unparse(operand)})"
        case ast.Constant(bool(value)):
            yield str(not value)
        case ast.Constant(int(value) | float(value)):
            yield repr(value + 1)
        case ast.IfExp(test, body, orelse):
            yield f"({ast.unparse(ast.IfExp(ast.UnaryOp(ast.Not(), test), body, orelse))})"
        case ast.Expr(ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break():
            yield "pass"
        case ast.Assign([ast.Name(name)], value) if name in {n.id for n in ast.walk(value) if isinstance(n, ast.Name)}:
            yield "pass"
        case ast.Return(ast.expr()):
            yield "return None"
