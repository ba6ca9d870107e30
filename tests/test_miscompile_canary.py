"""Some CPU compilers break the pattern of a covariance: no result can be trusted with those."""

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np


def test_the_compiler_computes_a_covariance_pattern():
    # The fault depends on the shapes: with 128 rows of t instead of 256 it does not show.
    rng = np.random.RandomState(0)
    p = rng.uniform(size=(64, 16)).astype(np.float32)
    p /= p.sum(-1, keepdims=True)
    t = rng.normal(size=(256, 64, 16)).astype(np.float32)

    @jax.jit
    def weighted_deviation(p, t):
        return p * (t - jnp.sum(p[0] * t[:, 0], -1)[:, None, None])

    with jax.numpy_rank_promotion("allow"):
        actual = np.asarray(weighted_deviation(p, t), np.float64)
    p, t = p.astype(np.float64), t.astype(np.float64)
    expected = p * (t - np.sum(p[0] * t[:, 0], -1)[:, None, None])
    error = np.max(np.abs(actual - expected))
    assert error < 1e-5, (
        f"jaxlib {jaxlib.__version__} miscompiles p * (t - sum(p[0] * t[:, 0], -1)) under jit: "
        f"wrong by {error:.2g}. Known of jaxlib 0.10.2 on the CPU; 0.9, 0.10.1 and 0.12 are right. "
        "Install one of those, or turn the faulty fusion off: "
        "XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type="
    )
