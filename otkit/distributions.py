r"""The 2-Wasserstein distance between torch distributions, by the types of the two.

A registry like that of `torch.distributions.kl`: `register_w2` adds a closed form for a pair of types, and a call
takes the most specific pair that the two distributions belong to. Gaussians are reduced to locations and factors, so
that a low-rank
covariance is never filled in:

    ============================================  =======================================
    pair                                          form
    ============================================  =======================================
    Normal                                        :math:`|m_1 - m_2|^2 + |\sigma_1 - \sigma_2|^2`
    Independent(Normal), 1 or more dimensions     `otkit.gaussian.w2_squared_diagonal`
    MultivariateNormal, LowRankMultivariateNormal `otkit.gaussian.w2_squared_from_factors`
    Delta, as far as torch has it: scale 0        the same, as a factor of zeros
    ============================================  =======================================
"""

from __future__ import annotations
