"""Chains spread over a device mesh, one example or several to each device."""

import pytest

from tests.training import toy

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec
from gasn_jax.structured import chain

operations = {
    "log_partition": chain.log_partition,
    "marginals": chain.marginals,
    "gradient": jax.grad(lambda u, w: (chain.marginals(u, w).unary ** 2).sum()),
    "covariance": chain.covariance,
    "argmax": chain.argmax,
    "top_k": lambda u, w: chain.top_k(u, w, 3),
    "sample": lambda u, w: chain.sample(jax.random.key(0), u, w, num_samples=3),
    "log_prob": lambda u, w: chain.log_prob(jnp.zeros(4, int), u, w),
    "entropy": chain.entropy,
    "kl_divergence": lambda u, w: chain.kl_divergence(u, w, 2 * u, w),
}
rng = np.random.default_rng(0)
arrays = [jnp.float32(rng.normal(size=(8, *shape))) for shape in ((4, 2), (3, 2, 2))]
mesh = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
spec = PartitionSpec("data")
for name, operation in operations.items():
    batched = jax.vmap(operation)
    spread = jax.shard_map(batched, mesh=mesh, in_specs=spec, out_specs=spec)
    got, wanted = jax.jit(spread)(*arrays), jax.jit(batched)(*arrays)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, err_msg=name)
print("all equal")
"""


@pytest.mark.slow
def test_shard_map_changes_nothing():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    result = toy.run_python(["-c", PROGRAM], flags)
    assert result.stdout == "all equal\n", result.stderr
