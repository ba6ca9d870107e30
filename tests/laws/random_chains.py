"""Random chains for tests, many of them with forbidden states and edges."""

import numpy as np


def random_chains(rng, batch, num_variables, num_states, *, dtype=np.float64, forbid=True):
    """Potentials [B, N, L] and [B, N-1, L, L]; a third dense, a third sparse, a third cruel."""
    scale = rng.choice([0.3, 1.0, 2.0], size=batch)
    unary = rng.normal(size=(batch, num_variables, num_states)) * scale[:, None, None]
    pairwise = rng.normal(size=(batch, num_variables - 1, num_states, num_states))
    pairwise = pairwise * scale[:, None, None, None]
    if forbid:
        rate = rng.choice([0.0, 0.1, 0.4], size=batch)
        unary[rng.random(unary.shape) < rate[:, None, None]] = -np.inf
        pairwise[rng.random(pairwise.shape) < rate[:, None, None, None]] = -np.inf
        whole = 0.3 * (rng.random(batch) < 0.3)[:, None, None]
        pairwise[rng.random(pairwise.shape[:3]) < whole] = -np.inf  # rows: no way on
        columns = rng.random(pairwise.shape[:3]) < whole
        pairwise.swapaxes(2, 3)[columns] = -np.inf  # columns: no way in
        unary[rng.random(unary.shape[:2]) < 0.1 * whole[..., 0]] = -np.inf  # nothing at all
    return unary.astype(dtype), pairwise.astype(dtype)
