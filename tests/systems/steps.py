"""What every trained system's steps must be: AdamW's, and one program for all."""

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


def check_kept_types(system, config, x, y):
    """Else the second step of a loop would be compiled again."""
    key = jax.random.key(0)
    state = system.init(config, key, x[0], y[0])
    after = jax.eval_shape(lambda *a: system.train_step(config, *a)[0], state, x, y, key)
    types = [
        [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(tree)]
        for tree in (state, after)
    ]
    assert types[0] == types[1]
