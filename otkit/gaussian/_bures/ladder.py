r"""Minimax odd polynomials that take singular values towards one, by the fewest matrix products.

Step k maps an interval :math:`[\ell_k, 1]` of singular values into :math:`[\ell_{k-1}, 1 - 10^{-10}]`, and step 0 maps
:math:`[\ell_0, 1]` to one within rounding: an odd polynomial :math:`x\,q(x^2)` of degree 3, 5 or 9 that deviates the
least from a constant on the interval (Remez, at 60 digits). A sequence of them that ends at step 0 makes a matrix with
singular values in :math:`[\ell, 1]` orthogonal, and its length is known before it starts: for :math:`\ell` down to
:math:`2^{-29}` all singular values end within 1e-14 of one, and the polar factor within :math:`\epsilon/\ell`, its own
rounding.

The distance to one is for rounding. At one the polynomials are up to 41 times as steep as x, and had they one for a
fixed point, what a product lifts above it would be 41 times as far above after each step: anywhere after ten.

:math:`q(X^\top X)` costs 1, 2 or 3 products, with the coefficients stored for

- degree 3, (a, b): :math:`a I + b X^\top X`;
- degree 5, (r, h, k): :math:`(r X^\top X + h I)^2 + k I`;
- degree 9, (r, h, k1, m, k2): :math:`(C^2 + k_1 I)(m C^2 + C + k_2 I)` with :math:`C = r X^\top X + h I`.

References:
    Amsel, Persson, Musco & Gower, 2026. *The Polar Express* (ICLR; arXiv 2505.16932), theorem 3.1 (4.1 in the first
    version): the greedy composition is optimal.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from typing import NamedTuple


class Step(NamedTuple):
    """An odd polynomial of a degree, that serves singular values from `lowest` to one."""

    degree: int
    lowest: float
    coefficients: tuple[float, ...]


@functools.lru_cache(1024)
def steps_for(sixteenths: int) -> tuple[Step, ...]:
    """The sequence with the fewest products for singular values in [2^(-sixteenths/16), 1]."""
    lowest = 2.0 ** (-sixteenths / 16)
    candidates = [
        (products + 4 * k, step, k)
        for k, row in enumerate(LADDER)
        for products, step in zip((2, 3, 4), row, strict=True)
        if step.lowest <= lowest
    ]
    if not candidates:
        return steps_for(16 * DEEPEST)
    _, first, k = min(candidates, key=lambda candidate: candidate[0])
    return (first, *(LADDER[j][-1] for j in range(k - 1, -1, -1)))


def ladder(lowest: float) -> tuple[Step, ...]:
    """The sequence with the fewest products for singular values in [lowest, 1]."""
    return steps_for(math.ceil(-16 * math.log2(lowest) - 1e-9) if lowest > 2.0**-DEEPEST else 16 * DEEPEST)


@functools.lru_cache(64)
def completed(step: Step) -> tuple[float, ...]:
    r"""The coefficients of a step with the square completed, so that it needs squares alone.

    (r, h), (r, h, k) and (r, h, k, m, q, s) for :math:`X A`, :math:`X (A^2 + k I)` and
    :math:`X (m (A^2 + k I)^2 + q A + s I)`, where :math:`A = r X^\top X + h I`.
    """
    if step.degree == 3:
        return step.coefficients[::-1]
    if step.degree == 5:
        return step.coefficients
    r, h, k1, m, k2 = map(Fraction, step.coefficients)
    # m C⁴ + C³ + c2 C² + k1 C + k1 k2 in A = C + t, of which the third power goes
    t, c2 = 1 / (4 * m), k2 + m * k1
    square = c2 - 6 * m * t * t
    linear = k1 - 2 * c2 * t + 8 * m * t**3
    constant = k1 * k2 - k1 * t + c2 * t * t - 3 * m * t**4
    k = square / (2 * m)
    return tuple(map(float, (r, h + t, k, m, linear, constant - m * k * k)))


DEEPEST = 29

# fmt: off
LADDER: tuple[tuple[Step, Step, Step], ...] = (
    (
        Step(3, 0.9999999769060037, (1.5000000173204975, -0.5000000173204976)),
        Step(5, 0.9999891423885049, (0.6123807469050707, -1.0206234965702696, 0.8333378573457978)),
        Step(9, 0.9985469243800905, (0.9716895311777227, -2.057251264017501, 0.7233946451298582, 0.30873714246519446,
        1.247539100209637)),
    ),
    (
        Step(3, 0.939617118376893, (1.5464472387189705, -0.54790031433888)),
        Step(5, 0.8098825848028494, (0.7871523477493227, -1.0817644786526555, 0.9132036922245976)),
        Step(9, 0.5747805755695101, (1.7278398406225433, -2.3790843438042435, 0.8078429521507245, 0.27105990775635586,
        1.3479958512161876)),
    ),
    (
        Step(3, 0.27145830962031625, (2.2400972020480503, -1.66531662647854)),
        Step(5, 0.17120429563335982, (2.2751679912714953, -1.704615526518151, 0.674469884863884)),
        Step(9, 0.09720977772373837, (4.504798701529982, -4.166070213562574, 0.39244154814117194, 0.16759525620441096,
        1.6137344062007426)),
    ),
    (
        Step(3, 0.038204517836955644, (2.5480348392271464, -2.4508250615034077)),
        Step(5, 0.02338385648025533, (2.950557100607346, -2.011384025122385, 0.1179539341841197)),
        Step(9, 0.013100192813196004, (5.436787675421881, -4.835896031301319, 0.060401099760729195, 0.14684816685454768,
        1.7187233735297536)),
    ),
    (
        Step(3, 0.005055188098625467, (2.591501176264751, -2.5784009834515547)),
        Step(5, 0.0030862044136898232, (3.048425965572899, -2.0564348707524376, 0.015953667696903033)),
        Step(9, 0.001727047506740103, (5.564159634491777, -4.928629628811098, 0.00803591024042294, 0.1443750277627414,
        1.7337287439340117)),
    ),
    (
        Step(3, 0.0006649623131898383, (2.5972122564434827, -2.5954852089367426)),
        Step(5, 0.00040583542037703934, (3.0613329834228797, -2.062385640047465, 0.0021042050632015053)),
        Step(9, 0.00022707613696621177, (5.58083381676928, -4.940787211104848, 0.0010576276756477784,
        0.14405696686550926, 1.735703894375288)),
    ),
    (
        Step(3, 8.74054664869568e-05, (2.5979626655815973, -2.597735589444631)),
        Step(5, 5.334258409263962e-05, (3.063029734461785, -2.063168085291285, 0.0002766824180477597)),
        Step(9, 2.9846132484280767e-05, (5.583023696355567, -4.942384210700796, 0.00013902865430877922,
        0.14401529117976558, 1.7359634817155856)),
    ),
    (
        Step(3, 1.1487847737556287e-05, (2.5980612878986897, -2.598031441766205)),
        Step(5, 7.010868721395421e-06, (3.0632527438336834, -2.0632709273021437, 3.636650628260535e-05)),
        Step(9, 3.9226978548188545e-06, (5.583311482966835, -4.942594088200749, 1.827293494027721e-05,
        0.14400981596136175, 1.7359975989791079)),
    ),
    (
        Step(3, 1.5098482482618787e-06, (2.59807424974236, -2.598070327044505)),
        Step(5, 9.21438093662549e-07, (3.0632820540051426, -2.063284443898044, 4.7796800913565035e-06)),
        Step(9, 5.155598108346542e-07, (5.583349306200018, -4.942621672080835, 2.4016153492576692e-06,
        0.14400909639274745, 1.7360020829992402)),
    ),
    (
        Step(3, 1.9843908342138105e-07, (2.5980759533135647, -2.598075437753754)),
        Step(5, 1.2110443171158944e-07, (3.063285906236413, -2.0632862203829587, 6.281929920054717e-07)),
        Step(9, 6.77599242732418e-08, (5.583354277290865, -4.9426252974195695, 3.1564392202670793e-07,
        0.14400900182065712, 1.7360026723329725)),
    ),
    (
        Step(3, 2.6080807355662228e-08, (2.5980761772135454, -2.598076109453621)),
        Step(5, 1.5916730016628083e-08, (3.0632864125343784, -2.0632864538660205, 8.256328255422234e-08)),
        Step(9, 8.905672565297757e-09, (5.5833549306401276, -4.942625773896985, 4.148501570192331e-08,
        0.1440089893910788, 1.736002749788978)),
    ),
    (
        Step(3, 3.4277949748105522e-09, (2.598076206640672, -2.5980761977349993)),
        Step(5, 2.091932444288498e-09, (3.0632864790770125, -2.0632864845526497, 1.0851274849765789e-08)),
        Step(9, 1.1704706522908912e-09, (5.58335501650968, -4.942625836520309, 5.4523668226890986e-09,
        0.14400898775746218, 1.7360027599690044)),
    ),
)
# fmt: on
