"""Parallel tempering: what it leaves unchanged, and that it passes between modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.energy import annealed_importance as ais
from gasn_jax.energy import gibbs
from gasn_jax.energy import parallel_tempering as pt
from gasn_jax.energy import rbm as rbms
from tests.energy import machines

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)
BETAS = jnp.asarray([0.0, 0.4, 1.0])


@pytest.mark.parametrize("num_steps", [0, 1])
def test_a_step_leaves_the_product_of_all_replicas_unchanged(num_steps):
    params, rbm = machines.machine("binary", "spin", num_visible=2, num_hidden=2, scale=1.5)
    path = ais.rbm_path(params, rbm)
    v = machines.configurations("binary", 2)
    log_p = jax.vmap(lambda beta: jax.vmap(lambda x: path.log_density(x, beta))(v))(BETAS)
    p = np.asarray(jax.nn.softmax(log_p))  # [replica, state]
    joint = np.einsum("a,b,c->abc", *p)

    count = 200_000
    start_key, key = jax.random.split(KEY)
    start = jax.random.categorical(start_key, log_p, shape=(count, 3))

    @jax.jit
    @jax.vmap
    def moved(key, rows):
        state, info = pt.step(key, pt.State(jnp.asarray(v)[rows], num_steps), path, BETAS)
        return state.x, info

    x, info = moved(jax.random.split(key, count), start)
    rows = np.asarray(x) @ np.array([2, 1])  # binary configurations are numbered so
    counts = np.zeros((4, 4, 4))
    np.add.at(counts, tuple(rows.astype(int).T), 1)
    np.testing.assert_allclose(counts / count, joint, atol=5 * 0.5 / np.sqrt(count))
    assert np.all(np.asarray(info.proposed) == (np.arange(2) == num_steps))
    swapped = np.mean(info.swapped, axis=0)
    assert swapped[1 - num_steps] == 0
    # How often neighbours change places is known, too.
    low, high = p[num_steps], p[num_steps + 1]
    ratio = (high / low)[:, None] / (high / low)[None, :]
    wanted = np.sum(np.outer(low, high) * np.minimum(1, ratio))
    assert abs(swapped[num_steps] - wanted) < 5 * 0.5 / np.sqrt(count)


def test_it_passes_between_modes_that_gibbs_chains_do_not_leave():
    """Two opposite patterns, far apart: by symmetry the mean of each unit is 0."""
    rbm = rbms.RBM(8, 4)
    params = {
        "weights": np.full((8, 4), 1.0),
        "visible_bias": np.zeros(8),
        "hidden_bias": np.zeros(4),
    }
    path, betas = ais.rbm_path(params, rbm), jnp.linspace(0.0, 1.0, 8)

    def tempered(key):
        def body(state, key):
            state, info = pt.step(key, state, path, betas)
            return state, (state.x[-1].mean(), info)

        start = pt.init(KEY, path, betas)
        return jax.lax.scan(body, start, jax.random.split(key, 4000))[1]

    def alone(key):
        def body(state, key):
            state, _ = gibbs.step(key, state, params, rbm)
            return state, state.v.mean()

        return jax.lax.scan(body, gibbs.State(jnp.ones(8)), jax.random.split(key, 4000))[1]

    means, info = jax.jit(tempered)(KEY)
    stuck = jax.jit(alone)(KEY)
    assert np.all(np.sign(stuck) == 1)
    assert abs(np.mean(means)) < 0.2 and np.sum(np.diff(np.sign(means)) != 0) > 50
    shares = np.sum(info.swapped, axis=0) / np.sum(info.proposed, axis=0)
    assert np.all(shares > 0.2)


def test_a_single_replica_is_the_plain_chain():
    params, rbm = machines.machine("spin", "spin")
    path, betas = ais.rbm_path(params, rbm), jnp.ones(1)
    state, info = pt.step(KEY, pt.init(KEY, path, betas), path, betas)
    assert state.x.shape == (1, 4) and info.swapped.shape == (0,) and state.num_steps == 1
