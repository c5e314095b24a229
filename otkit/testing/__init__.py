"""Tools to verify optimal transport, for our tests and our users'. Needs hypothesis.

- Strategies that draw matrices, Gaussians, points and measures, and shrink them: `gaussians`, `measures`, ...
- Problems with their exact answers, each by a theorem: `translations`, `convex_gradients`, `affine_gaussians`, ...
- Laws that take any distance: `check_symmetry(distance, x, y)`, `check_triangle_inequality(distance, x, y, z)`, ...
- All of them at once, on examples that Hypothesis finds: `check_laws(distance, on="points")`.

A distance that breaks a law raises a `LawViolation`, which shows the simplest inputs, both sides, and what rounding
explains.
"""

try:
    import hypothesis as _hypothesis  # noqa: F401
except ImportError as error:
    raise ImportError(f"{error}; install the test extra, pip install 'otkit[test]', or hypothesis") from None

from otkit.testing._gradients import check_gradient as check_gradient
from otkit.testing._gradients import check_gradient_in_weights as check_gradient_in_weights
from otkit.testing._laws import check_batch as check_batch
from otkit.testing._laws import check_bounds as check_bounds
from otkit.testing._laws import check_convexity as check_convexity
from otkit.testing._laws import check_gelbrich_bound as check_gelbrich_bound
from otkit.testing._laws import check_identity as check_identity
from otkit.testing._laws import check_monotone_in_p as check_monotone_in_p
from otkit.testing._laws import check_problem as check_problem
from otkit.testing._laws import check_relabelling as check_relabelling
from otkit.testing._laws import check_rotation as check_rotation
from otkit.testing._laws import check_scaling as check_scaling
from otkit.testing._laws import check_splitting as check_splitting
from otkit.testing._laws import check_symmetry as check_symmetry
from otkit.testing._laws import check_talagrand as check_talagrand
from otkit.testing._laws import check_translation as check_translation
from otkit.testing._laws import check_triangle_inequality as check_triangle_inequality
from otkit.testing._measures import Gaussian as Gaussian
from otkit.testing._measures import Measure as Measure
from otkit.testing._plans import check_dual_feasibility as check_dual_feasibility
from otkit.testing._plans import check_marginals as check_marginals
from otkit.testing._problems import Problem as Problem
from otkit.testing._problems import affine_gaussians as affine_gaussians
from otkit.testing._problems import commuting_gaussians as commuting_gaussians
from otkit.testing._problems import convex_gradients as convex_gradients
from otkit.testing._problems import dirac_gaussians as dirac_gaussians
from otkit.testing._problems import diracs as diracs
from otkit.testing._problems import entropic_gaussians_on_a_grid as entropic_gaussians_on_a_grid
from otkit.testing._problems import problems as problems
from otkit.testing._problems import quantiles as quantiles
from otkit.testing._problems import relabellings as relabellings
from otkit.testing._problems import scalings as scalings
from otkit.testing._problems import translations as translations
from otkit.testing._strategies import gaussians as gaussians
from otkit.testing._strategies import isometries as isometries
from otkit.testing._strategies import measures as measures
from otkit.testing._strategies import near as near
from otkit.testing._strategies import point_clouds as point_clouds
from otkit.testing._strategies import psd_matrices as psd_matrices
from otkit.testing._strategies import rotations as rotations
from otkit.testing._strategies import spd_matrices as spd_matrices
from otkit.testing._strategies import spectra as spectra
from otkit.testing._strategies import weights as weights
from otkit.testing._suite import DOMAINS as DOMAINS
from otkit.testing._suite import LAWS as LAWS
from otkit.testing._suite import applicable_laws as applicable_laws
from otkit.testing._suite import check_laws as check_laws
from otkit.testing._suite import find_violation as find_violation
from otkit.testing._violation import LawViolation as LawViolation

__all__ = [
    "DOMAINS",
    "Gaussian",
    "LAWS",
    "LawViolation",
    "Measure",
    "Problem",
    "affine_gaussians",
    "applicable_laws",
    "check_batch",
    "check_bounds",
    "check_convexity",
    "check_dual_feasibility",
    "check_gelbrich_bound",
    "check_gradient",
    "check_gradient_in_weights",
    "check_identity",
    "check_laws",
    "check_marginals",
    "check_monotone_in_p",
    "check_problem",
    "check_relabelling",
    "check_rotation",
    "check_scaling",
    "check_splitting",
    "check_symmetry",
    "check_talagrand",
    "check_translation",
    "check_triangle_inequality",
    "commuting_gaussians",
    "convex_gradients",
    "dirac_gaussians",
    "diracs",
    "entropic_gaussians_on_a_grid",
    "find_violation",
    "gaussians",
    "isometries",
    "measures",
    "near",
    "point_clouds",
    "problems",
    "psd_matrices",
    "quantiles",
    "relabellings",
    "rotations",
    "scalings",
    "spd_matrices",
    "spectra",
    "translations",
    "weights",
]
