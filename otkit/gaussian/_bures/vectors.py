"""Vectors of numbers for compiled loops: one number of each of several problems, which are solved at the same time.

Numba turns scalar loops into vector instructions where it recognises them. Here these are written outright: a value of
type `vector` is `LANES` numbers of float64 in one register, `load` and `store` move it from and to an array that holds
vectors one after another, and arithmetic is lane by lane.
"""

from __future__ import annotations

import operator
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import overload, register_model

intrinsic: Any = extending.intrinsic  # whose first argument a type checker would miss in calls

LANES = 8 if llvm.get_host_cpu_features().get("avx512f", False) else 4
"""How many numbers a vector has: those of one register, of two on some processors."""

REGISTER = ir.VectorType(ir.DoubleType(), LANES)


class Vector(types.Type):
    """Numba's type of a vector."""

    def __init__(self) -> None:
        super().__init__(name=f"Vector({LANES})")


vector = Vector()


@register_model(Vector)
class _InRegister(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, REGISTER)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, place: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(builder.bitcast(data, REGISTER.as_pointer()), [place])


@intrinsic
def load(typingctx: Any, array: Any, place: Any) -> Any:
    """The vector at a place, counted in vectors, of a one-dimensional array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, signature.args[0], *args), align=8)

    return vector(array, types.intp), generate


@intrinsic
def store(typingctx: Any, array: Any, place: Any, value: Any) -> Any:
    """Put a vector at a place, counted in vectors, of a one-dimensional array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, place, value = args
        builder.store(value, _pointer(context, builder, signature.args[0], array, place), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def in_all_lanes(typingctx: Any, number: Any) -> Any:
    """The vector of one number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        nothing, index = ir.Constant(REGISTER, ir.Undefined), ir.IntType(32)
        first = builder.insert_element(nothing, args[0], index(0))
        return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(index, LANES), [0] * LANES))

    return vector(types.float64), generate


def _instruction(name: str, arity: int) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(REGISTER, [REGISTER] * arity)
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f64")
        return builder.call(function, args)

    return vector(*[vector] * arity), generate


@intrinsic
def multiply_add(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """The sum a b + c, rounded once."""
    return _instruction("fma", 3)


@intrinsic
def square_root(typingctx: Any, a: Any) -> Any:
    """The square root, and NaN where there is none."""
    return _instruction("sqrt", 1)


def _choice(comparison: str) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b = args
        return builder.select(builder.fcmp_unordered(comparison, a, b), a, b)

    return vector(vector, vector), generate


@intrinsic
def smaller(typingctx: Any, a: Any, b: Any) -> Any:
    """The smaller of two numbers, and a where one is NaN."""
    return _choice("<")


@intrinsic
def larger(typingctx: Any, a: Any, b: Any) -> Any:
    """The larger of two numbers, and a where one is NaN."""
    return _choice(">")


def _arithmetic(symbol: Any, instruction: str) -> None:
    @intrinsic
    def compute(typingctx: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, instruction)(*args)

        return vector(vector, vector), generate

    # Without annotations, as Numba compares the signature with that of the result.
    @overload(symbol)
    def of_vectors(a, b):
        return (lambda a, b: compute(a, b)) if isinstance(a, Vector) and isinstance(b, Vector) else None


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")
