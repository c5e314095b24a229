r"""Matrices of distances among many measures, tile by tile.

The matrix :math:`D_{kl} = W(\mu_k, \nu_l)` is cut into square tiles, independent problems of about equal size.
Among the measures themselves it is symmetric, and only the tiles on and above the diagonal are computed. That one cut
serves everything that makes a large matrix bearable:

- **cores and clusters**: each tile is one joblib task that carries the measures of its rows and columns and nothing
  else. ``n_jobs`` means what it means in scikit-learn, and whatever backend ``joblib.parallel_config`` names takes over
  (``"dask"``, or ``"ray"`` after ``ray.util.joblib.register_ray()``);
- **streaming**: `pairwise_tiles` yields tiles as they are done, for matrices that are not to be held;
- **resuming**: with ``out=`` each tile goes into a .npy file and then into a record beside it, one line per tile. A
  computation that was interrupted goes on from there, with nothing done twice but the tiles that were under way.

joblib and tqdm come with the extra ``parallel``; one process without progress needs neither.
"""

from otkit.pairwise._blocks import DISTANCES as DISTANCES
from otkit.pairwise._matrix import pairwise_distances as pairwise_distances
from otkit.pairwise._matrix import pairwise_tiles as pairwise_tiles
from otkit.pairwise._tiles import Tile as Tile

__all__ = ["DISTANCES", "Tile", "pairwise_distances", "pairwise_tiles"]
