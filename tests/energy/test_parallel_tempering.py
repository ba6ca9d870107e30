"""Parallel tempering: what it leaves unchanged, and that it passes between modes."""

import functools
import itertools

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
    """Moves and exchanges as exact matrices; transitions counted from many draws are theirs."""
    params, rbm = machines.machine("binary", "spin", num_visible=2, num_hidden=2, scale=1.5)
    v, h, _ = machines.joint(params, rbm)
    path = ais.rbm_path(params, rbm)
    log_p = jax.vmap(lambda beta: jax.vmap(lambda x: path.log_density(x, beta))(v))(BETAS)
    pi = functools.reduce(np.kron, np.asarray(jax.nn.softmax(log_p)))  # of all 4^3 joint states

    # The path scales weights and hidden bias, so its kernel at beta is that machine's Gibbs step.
    def move(beta):
        bias = {"visible_bias": params["visible_bias"]}
        mixed = jax.tree.map(lambda x: beta * x, params) | bias
        up = machines.independent(jax.vmap(lambda x: rbms.hidden_mean(mixed, rbm, x))(v), h)
        down = machines.independent(jax.vmap(lambda x: rbms.visible_mean(mixed, rbm, x))(h), v)
        return up @ down

    moved = functools.reduce(np.kron, [move(beta) for beta in BETAS])
    np.testing.assert_allclose(pi @ moved, pi, atol=1e-15)

    # Without moves, a step is the exchange alone.
    still = path._replace(kernel=lambda key, x, beta: x)
    rows = np.array(list(itertools.product(range(4), repeat=3)))
    step = jax.jit(lambda key, x: pt.step(key, pt.State(x, num_steps), still, BETAS))
    _, info = jax.vmap(lambda x: step(KEY, x))(jnp.asarray(v)[rows])
    assert np.all(np.asarray(info.proposed) == (np.arange(2) == num_steps))
    probability = np.asarray(info.probability)[:, num_steps]
    other = rows.copy()
    other[:, [num_steps, num_steps + 1]] = rows[:, [num_steps + 1, num_steps]]
    numbers = other @ np.array([16, 4, 1])
    exchanged = np.diag(1 - probability)
    np.add.at(exchanged, (np.arange(64), numbers), probability)
    np.testing.assert_allclose(pi @ exchanged, pi, atol=1e-15)
    assert np.min(probability) < 0.8  # it is no law of exchanges that never fail

    count = 2000
    x = jnp.repeat(jnp.asarray(v)[rows], count, axis=0)

    @jax.jit
    @jax.vmap
    def stepped(key, x):
        return pt.step(key, pt.State(x, num_steps), path, BETAS)[0].x

    ends = np.asarray(stepped(jax.random.split(KEY, len(x)), x)) @ np.array([2, 1])
    ends = ends.astype(int) @ np.array([16, 4, 1])
    counts = np.zeros((64, 64))
    np.add.at(counts, (np.repeat(np.arange(64), count), ends), 1)
    wanted = moved @ exchanged
    np.testing.assert_allclose(counts / count, wanted, atol=5 * 0.5 / np.sqrt(count))


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


@pytest.mark.slow
def test_a_single_replica_is_the_plain_chain():
    params, rbm = machines.machine("spin", "spin")
    path, betas = ais.rbm_path(params, rbm), jnp.ones(1)
    state, info = pt.step(KEY, pt.init(KEY, path, betas), path, betas)
    assert state.x.shape == (1, 4) and info.swapped.shape == (0,) and state.num_steps == 1


@pytest.mark.slow
def test_betas_that_are_no_ladder_to_the_model_give_no_samples():
    params, rbm = machines.machine("spin", "spin")
    path = ais.rbm_path(params, rbm)
    state = pt.init(KEY, path, BETAS)
    for betas in ([0.0, 0.4, 0.9], [0.4, 0.0, 1.0]):
        found, info = pt.step(KEY, state, path, jnp.asarray(betas))
        assert np.all(np.isnan(found.x)) and np.all(np.isnan(info.probability))
    found, _ = pt.step(KEY, state, path, jnp.array([0, 0, 1]))
    assert np.all(np.isfinite(found.x))
    with pytest.raises(ValueError, match=r"betas must have shape \[K\] of K replicas, got \(2,\)"):
        pt.step(KEY, state, path, BETAS[1:])
