"""What a broken law says: which law, on what, both sides, by how much, and what rounding would explain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from otkit.testing._measures import show
from otkit.testing._rounding import Rounding


class LawViolation(AssertionError):
    """A distance breaks a law of optimal transport on the inputs shown.

    Attributes:
        law: The name of the law, as in `LAWS`.
        statement: The law as a formula.
        left: The value of its left side.
        right: The value of its right side.
        excess: By how much it is broken, the tolerance not subtracted; inf where a side is NaN.
        tolerance: What rounding explains.
        inputs: The inputs, by the names that the statement uses.
    """

    def __init__(
        self,
        law: str,
        statement: str,
        *,
        of: str,
        left: float,
        right: float,
        excess: float,
        tolerance: float,
        derivation: Rounding | str,
        inputs: Mapping[str, Any],
    ) -> None:
        self.law, self.statement, self.inputs = law, statement, dict(inputs)
        self.left, self.right, self.excess, self.tolerance = left, right, excess, tolerance
        shown = "\n".join(f"    {name} = {show(value)}" for name, value in inputs.items())
        super().__init__(
            f"{of} breaks the law of {law}: {statement}\n"
            f"    left side   {left:.17g}\n"
            f"    right side  {right:.17g}\n"
            f"    off by {excess:.3g}, where rounding explains {tolerance:.2g} ({derivation})\n"
            f"with\n{shown}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # By the message that was made, as that and not its parts is what an exception keeps.
        return AssertionError.__new__, (type(self), *self.args), self.__dict__


def require_equal(law: str, statement: str, left: float, right: float, tolerance: float, **context: Any) -> None:
    """Raise unless left = right within the tolerance; NaN is never equal."""
    excess = abs(left - right)
    _require(law, statement, left, right, excess, tolerance, context)


def require_at_most(law: str, statement: str, left: float, right: float, tolerance: float, **context: Any) -> None:
    """Raise unless left <= right within the tolerance; NaN is never below."""
    _require(law, statement, left, right, left - right, tolerance, context)


def _require(
    law: str, statement: str, left: float, right: float, excess: float, tolerance: float, context: dict[str, Any]
) -> None:
    # A tolerance grows with the distances, so that where one is infinite it is too, and explains nothing.
    if not (excess <= tolerance and excess < math.inf):
        excess = excess if excess == excess else math.inf
        raise LawViolation(
            law, statement, left=left, right=right, excess=excess, tolerance=tolerance, **context
        ) from None
