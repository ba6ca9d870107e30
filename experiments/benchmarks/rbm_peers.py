"""THRML's block Gibbs sampling of a machine of spins; needs the `benchmarks` extra."""

import jax
import jax.numpy as jnp
import thrml
from thrml.models import ising


def thrml_sampler(params, num_chains: int, num_sweeps: int):
    """A compiled call: visible spins [num_chains, V] after the sweeps, as -1 and 1."""
    num_visible, num_hidden = params["weights"].shape
    visible = [thrml.SpinNode() for _ in range(num_visible)]
    hidden = [thrml.SpinNode() for _ in range(num_hidden)]
    edges = [(v, h) for v in visible for h in hidden]
    biases = jnp.concatenate([params["visible_bias"], params["hidden_bias"]])
    weights = params["weights"].ravel()
    model = ising.IsingEBM(visible + hidden, edges, biases, weights, jnp.float32(1.0))
    blocks = [thrml.Block(hidden), thrml.Block(visible)]
    program = ising.IsingSamplingProgram(model, blocks, clamped_blocks=[])
    schedule = thrml.SamplingSchedule(n_warmup=num_sweeps, n_samples=1, steps_per_sample=1)

    @jax.jit
    @jax.vmap
    def run(key):
        start_key, key = jax.random.split(key)
        start = ising.hinton_init(start_key, model, blocks, ())
        (found,) = thrml.sample_states(key, program, schedule, start, [], [blocks[1]])
        return jnp.where(found[0], 1.0, -1.0)

    keys = jax.random.split(jax.random.key(1), num_chains)
    return lambda: run(keys)
