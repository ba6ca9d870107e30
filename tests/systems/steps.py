"""What every trained system's steps must be: AdamW's, and compiled once."""

import jax
import numpy as np


def check_first_step(after, before, gradient, *, rate, decay):
    """Where a gradient is not tiny, its length is divided out and its sign is left."""

    def check(after, before, gradient):
        gradient = np.asarray(gradient)
        wanted = before - rate * (gradient / (np.abs(gradient) + 1e-8) + decay * before)
        far = np.abs(gradient) > 1e-5
        np.testing.assert_allclose(np.asarray(after)[far], wanted[far], rtol=2e-3, atol=1e-5)
        return far.sum()

    checked = jax.tree.map(check, after, jax.tree.map(np.asarray, before), gradient)
    assert sum(jax.tree.leaves(checked)) > 10


def check_one_trace(system, config, x, y):
    """Ten steps of a system of networks over one minibatch are one program."""
    traced = []

    @jax.jit
    def step(state, key):
        traced.append(None)
        return system.train_step(config, state, x, y, key)[0]

    state = system.init(config, jax.random.key(0), x[0], y[0])
    for key in jax.random.split(jax.random.key(1), 10):
        state = step(state, key)
    assert len(traced) == 1
