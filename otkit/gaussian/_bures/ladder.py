r"""Minimax odd polynomials that take singular values towards one, by the fewest matrix products.

Step k maps an interval :math:`[\ell_k, 1]` of singular values into :math:`[\ell_{k-1}, 1]`, and step 0 maps
:math:`[\ell_0, 1]` to one within rounding: an odd polynomial :math:`x\,q(x^2)` of degree 3, 5 or 9 that deviates the
least from a constant on the interval (Remez, at 60 digits), scaled to stay below one. A sequence of them that ends at
step 0 makes a matrix with singular values in :math:`[\ell, 1]` orthogonal, and its length is known before it starts.

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
        Step(3, 0.9396171163639166, (1.5464472404613838, -0.547900316081291)),
        Step(5, 0.8098825808686387, (0.7871523521092771, -1.0817644802802493, 0.9132036939345707)),
        Step(9, 0.5747805710185139, (1.7278398532429367, -2.379084350367361, 0.8078429526143592, 0.27105990711497496,
        1.3479958525434055)),
    ),
    (
        Step(3, 0.2714583067045348, (2.2400972060180293, -1.6653166349994755)),
        Step(5, 0.17120429370642765, (2.27516799941828, -1.7046155302006687, 0.6744698798696868)),
        Step(9, 0.09720977660643866, (4.504798713414752, -4.166070222021023, 0.3924415445589582, 0.16759525590451516,
        1.6137344075193192)),
    ),
    (
        Step(3, 0.03820451738381628, (2.548034840079661, -2.4508250634732147)),
        Step(5, 0.0233838562020179, (2.9505571020962558, -2.011384025839531, 0.11795393283448019)),
        Step(9, 0.01310019265710666, (5.436787677360438, -4.835896032740244, 0.060401099053774755, 0.1468481668149918,
        1.718723373793053)),
    ),
    (
        Step(3, 0.005055188037729821, (2.5915011766032015, -2.5784009839460937)),
        Step(5, 0.003086204376499586, (3.048425965904461, -2.0564348709378373, 0.015953667506919175)),
        Step(9, 0.001727047485925146, (5.564159634908872, -4.92862962914424, 0.008035910144220573, 0.14437502775350164,
        1.7337287440192224)),
    ),
    (
        Step(3, 0.0006649623051063521, (2.597212256713708, -2.5954852092277827)),
        Step(5, 0.0004058354154433254, (3.061332983599696, -2.062385640161536, 0.0021042050378427485)),
        Step(9, 0.0002270761342056117, (5.5808338169859635, -4.940787211291896, 0.0010576276628624219,
        0.14405696686012376, 1.7357038944367784)),
    ),
    (
        Step(3, 8.740546541556985e-05, (2.5979626658427852, -2.59773558970858)),
        Step(5, 5.334258343877879e-05, (3.063029734618084, -2.0631680853958945, 0.00027668241468412)),
        Step(9, 2.9846132118436165e-05, (5.5830236965457285, -4.942384210868504, 0.00013902865261391034,
        0.1440152911748878, 1.7359634817739324)),
    ),
    (
        Step(3, 1.1487847595593518e-05, (2.59806128815868, -2.5980314420265618)),
        Step(5, 7.010868634756875e-06, (3.0632527439872628, -2.0632709274054997, 3.636650583683738e-05)),
        Step(9, 3.922697806343358e-06, (5.583311483153484, -4.942594088365895, 1.8272934715684648e-05,
        0.14400981595655118, 1.735997599037038)),
    ),
    (
        Step(3, 1.509848229452656e-06, (2.598074250002192, -2.5980703273043853)),
        Step(5, 9.214380821835562e-07, (3.063282054158362, -2.0632844440012335, 4.779680032290746e-06)),
        Step(9, 5.155598044120193e-07, (5.583349306386201, -4.942621672245641, 2.4016153194994375e-06,
        0.1440090963879458, 1.736002083057115)),
    ),
    (
        Step(3, 1.9843908092947188e-07, (2.5980759535733755, -2.598075438013571)),
        Step(5, 1.211044301908161e-07, (3.0632859063895848, -2.0632862204861264, 6.281929841797356e-07)),
        Step(9, 6.775992342234956e-08, (5.583354277476986, -4.94262529758433, 3.156439180840665e-07,
        0.14400900181585666, 1.7360026723908404)),
    ),
    (
        Step(3, 2.6080807025548203e-08, (2.5980761774733536, -2.59807610971343)),
        Step(5, 1.5916729815163385e-08, (3.0632864126875434, -2.063286453969185, 8.256328151744074e-08)),
        Step(9, 8.905672452575967e-09, (5.583354930826241, -4.94262577406174, 4.1485015179600597e-08,
        0.1440089893862785, 1.736002749846845)),
    ),
    (
        Step(3, 3.427794931081422e-09, (2.5980762069004797, -2.598076197994807)),
        Step(5, 2.0919324176012563e-09, (3.063286479230177, -2.0632864846558143, 1.085127471241882e-08)),
        Step(9, 1.1704706373588755e-09, (5.5833550166957915, -4.942625836685063, 5.452366753495248e-09,
        0.14400898775266188, 1.7360027600268713)),
    ),
)
# fmt: on
