"""Gibbs chains: the kernel as an exact matrix, and what a run returns."""

import jax
import numpy as np
import pytest

from gasn_jax.energy import gibbs
from gasn_jax.energy import rbm as rbms
from tests.energy import machines

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(("visible", "hidden"), machines.DISCRETE)
def test_the_kernel_leaves_the_distribution_unchanged(visible, hidden):
    """The conditionals as an exact matrix; transitions counted from many draws are its own."""
    params, rbm = machines.machine(visible, hidden, num_visible=3, num_hidden=2)
    v, h, scores = machines.joint(params, rbm)
    p = np.exp(scores - machines.log_sum_exp(scores)).sum(1)
    up = machines.independent(jax.vmap(lambda one: rbms.hidden_mean(params, rbm, one))(v), h)
    down = machines.independent(jax.vmap(lambda one: rbms.visible_mean(params, rbm, one))(h), v)
    kernel = up @ down  # [from, to]
    np.testing.assert_allclose(p @ kernel, p, atol=1e-14)

    count = 4000
    keys = jax.random.split(jax.random.key(0), (len(v), count))

    @jax.jit
    @jax.vmap
    def moved(keys, v):
        return jax.vmap(lambda k: gibbs.step(k, gibbs.State(v), params, rbm)[0].v)(keys)

    ends = np.asarray(moved(keys, v))
    same = (ends[:, :, None, :] == v[None, None]).all(axis=-1)
    np.testing.assert_array_equal(same.sum(axis=-1), 1)
    np.testing.assert_allclose(same.mean(axis=1), kernel, atol=5 * 0.5 / np.sqrt(count))


def test_many_steps_are_steps_one_by_one():
    params, rbm = machines.machine("spin", "binary")
    key = jax.random.key(3)
    state = start = gibbs.init(jax.random.key(0), params, rbm)
    for one in jax.random.split(key, 5):
        state, info = gibbs.step(one, state, params, rbm)
    run, last = gibbs.run(key, start, params, rbm, num_steps=5)
    np.testing.assert_array_equal(run.v, state.v)
    np.testing.assert_array_equal(last.h, info.h)
    np.testing.assert_allclose(last.visible_mean, rbms.visible_mean(params, rbm, info.h))
    with pytest.raises(ValueError, match="num_steps must be >= 1, got 0"):
        gibbs.run(key, start, params, rbm, num_steps=0)


@pytest.mark.parametrize("visible", ["spin", "gaussian"])
def test_a_fresh_chain_has_the_bias_alone(visible):
    params, rbm = machines.machine(visible, "spin")
    keys = jax.random.split(jax.random.key(0), 20000)
    drawn = jax.vmap(lambda k: gibbs.init(k, params, rbm).v)(keys)
    wanted = rbms.mean(visible, params["visible_bias"])
    np.testing.assert_allclose(np.mean(drawn, axis=0), wanted, atol=0.04)
