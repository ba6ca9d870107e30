"""Contrastive divergence against the exact gradient of the likelihood."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.energy import contrastive_divergence as cd
from gasn_jax.energy import gibbs
from gasn_jax.energy import rbm as rbms
from tests.energy import machines

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)


def some_data(rbm, count=6):
    rng = np.random.default_rng(1)
    if rbm.visible == "gaussian":
        return jnp.asarray(rng.normal(size=(count, rbm.num_visible)))
    return jnp.asarray(rng.choice(machines.STATES[rbm.visible], size=(count, rbm.num_visible)))


@pytest.mark.parametrize(("visible", "hidden"), machines.DISCRETE)
def test_with_chains_that_are_the_model_it_is_the_likelihoods_gradient(visible, hidden):
    """The negative phase over all states, weighted, in place of chains: no noise left."""
    params, rbm = machines.machine(visible, hidden)
    data = some_data(rbm)
    v, _, scores = machines.joint(params, rbm)
    p = np.exp(machines.log_sum_exp(scores, axis=1) - machines.log_sum_exp(scores))
    each = jax.vmap(lambda one: cd.phase(params, rbm, one[None]))(v)
    negative = jax.tree.map(lambda x: jnp.tensordot(p, x, axes=1), each)
    descent = jax.tree.map(jnp.subtract, negative, cd.phase(params, rbm, data))
    exact = jax.grad(lambda q: -rbms.log_likelihood(q, rbm, data))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), descent, exact)


@pytest.mark.parametrize(("visible", "hidden"), machines.KINDS)
def test_long_chains_come_to_the_exact_gradient(visible, hidden):
    params, rbm = machines.machine(visible, hidden, scale=0.3)
    data = some_data(rbm)
    chains = jnp.tile(data, (3000, 1))
    run = jax.jit(
        lambda key: (
            cd.gradient(key, params, rbm, data, chains=gibbs.State(chains), num_steps=30).gradient
        )
    )
    exact = jax.grad(lambda q: -rbms.log_likelihood(q, rbm, data))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.04), run(KEY), exact)


def test_what_it_returns_and_where_chains_start():
    params, rbm = machines.machine("spin", "spin")
    data = some_data(rbm)
    result = cd.gradient(KEY, params, rbm, data, num_steps=3)
    assert result.chains.v.shape == data.shape
    again = cd.gradient(KEY, params, rbm, data, chains=gibbs.State(data), num_steps=3)
    np.testing.assert_array_equal(result.chains.v, again.chains.v)
    other = cd.gradient(KEY, params, rbm, data, chains=gibbs.State(-data), num_steps=1)
    assert np.any(other.chains.v != result.chains.v)
    for name, value in result.gradient.items():
        wanted = result.negative_phase[name] - result.positive_phase[name]
        np.testing.assert_allclose(value, wanted, rtol=0, atol=1e-12)
        assert value.shape == params[name].shape
    negative = result.negative_phase["visible_bias"]
    np.testing.assert_allclose(negative, np.mean(result.chains.v, axis=0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("hidden", ["spin", "binary"])
def test_penalties_are_added(hidden):
    params, rbm = machines.machine("binary", hidden)
    data = some_data(rbm)
    plain = cd.gradient(KEY, params, rbm, data).gradient
    decayed = cd.gradient(KEY, params, rbm, data, weight_decay=0.3).gradient
    added = decayed["weights"] - plain["weights"]
    np.testing.assert_allclose(added, 0.3 * params["weights"], atol=1e-12)
    np.testing.assert_array_equal(decayed["hidden_bias"], plain["hidden_bias"])
    options = dict(sparsity=2.0, sparsity_target=0.2)
    sparse = cd.gradient(KEY, params, rbm, data, **options).gradient

    def penalty(bias):
        logits = bias[None] + data @ params["weights"]
        on = jax.nn.sigmoid(2 * logits if hidden == "spin" else logits)
        return jnp.sum((on.mean(0) - 0.2) ** 2)

    added = sparse["hidden_bias"] - plain["hidden_bias"]
    np.testing.assert_allclose(added, jax.grad(penalty)(params["hidden_bias"]), atol=1e-12)
    np.testing.assert_array_equal(sparse["visible_bias"], plain["visible_bias"])


def test_training_raises_the_likelihood():
    params, rbm = machines.machine("binary", "binary", num_visible=6, num_hidden=4, scale=0.1)
    # Two patterns, each flipped a little.
    rng = np.random.default_rng(0)
    patterns = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])[rng.integers(0, 2, 300)]
    data = jnp.asarray(np.abs(patterns - (rng.random(patterns.shape) < 0.05)), float)
    before = rbms.log_likelihood(params, rbm, data)

    @jax.jit
    def step(params, chains, key):
        result = cd.gradient(key, params, rbm, data, chains=chains)
        return jax.tree.map(lambda p, g: p - 0.2 * g, params, result.gradient), result.chains

    chains = gibbs.State(data)
    for key in jax.random.split(KEY, 1200):
        params, chains = step(params, chains, key)
    # The patterns' entropy, and that of the flips.
    best = -np.log(2) + 6 * (0.95 * np.log(0.95) + 0.05 * np.log(0.05))
    after = rbms.log_likelihood(params, rbm, data)
    assert before < -4 and best - 0.2 < after < best + 0.2


def test_data_of_another_size_are_refused():
    params, rbm = machines.machine("spin", "spin")
    for data in (jnp.ones(4), jnp.ones((3, 5)), jnp.ones((0, 4))):
        with pytest.raises(ValueError, match=r"data must have shape \[M, 4\], got \("):
            cd.gradient(KEY, params, rbm, data)
    for chains in (jnp.ones((0, 4)), jnp.ones((3, 5)), jnp.ones(4)):
        with pytest.raises(ValueError, match=r"chains must have v of shape \[C, 4\] with C >= 1"):
            cd.gradient(KEY, params, rbm, jnp.ones((3, 4)), chains=gibbs.State(chains))


@pytest.mark.parametrize(("visible", "hidden"), machines.DISCRETE)
def test_the_entropys_gradient_is_the_enumerated_one(visible, hidden):
    params, rbm = machines.machine(visible, hidden, num_visible=3, num_hidden=2)
    v, _, scores = machines.joint(params, rbm)
    log_p = machines.log_sum_exp(scores, axis=1) - machines.log_sum_exp(scores)

    def entropy(params):
        log_p = -jax.vmap(lambda one: rbms.free_energy(params, rbm, one))(v)
        log_p = jax.nn.log_softmax(log_p)
        return -jnp.sum(jnp.exp(log_p) * log_p)

    exact = jax.grad(lambda q: -entropy(q))(params)
    rows = np.random.default_rng(0).choice(len(v), size=(2000, 200), p=np.exp(log_p))
    found = jax.jit(jax.vmap(lambda x: cd.entropy_gradient(params, rbm, x)))(jnp.asarray(v)[rows])
    for name, each in found.items():
        error = np.std(each, axis=0) / np.sqrt(len(rows))
        np.testing.assert_array_less(np.abs(np.mean(each, axis=0) - exact[name]), 4.5 * error)
    uphill = jax.tree.map(lambda x, g: x - 1e-3 * jnp.mean(g, axis=0), params, found)
    assert entropy(uphill) > entropy(params)
    with pytest.raises(ValueError, match="at least 2 rows, got 1"):
        cd.entropy_gradient(params, rbm, v[:1])


@pytest.mark.parametrize(
    ("visible", "value", "is_state", "is_mean"),
    [
        ("binary", 0.0, True, True),
        ("binary", 0.5, False, True),
        ("binary", 1.5, False, False),
        ("binary", -1.0, False, False),
        ("spin", -1.0, True, True),
        ("spin", 0.0, False, True),
        ("gaussian", 7.5, True, True),
        ("gaussian", np.inf, False, False),
    ],
)
def test_what_is_no_state_of_its_units_gives_no_gradient(visible, value, is_state, is_mean):
    params, rbm = machines.machine(visible, "spin")
    good = jnp.ones((3, 4))
    odd = good.at[0, 1].set(value)
    for means, finite in ((False, is_state), (True, is_mean)):
        for data, chains in ((odd, good), (good, odd), (odd, None)):
            chains = None if chains is None else gibbs.State(chains)
            found = cd.gradient(KEY, params, rbm, data, chains=chains, means=means)
            for leaf in jax.tree.leaves(found):
                assert np.all(np.isfinite(leaf)) == finite and np.all(np.isnan(leaf)) != finite
    of_entropy = cd.entropy_gradient(params, rbm, odd)
    assert all(np.all(np.isfinite(leaf)) == is_state for leaf in of_entropy.values())


def test_integers_and_penalties_out_of_range_are_refused():
    params, rbm = machines.machine("binary", "spin")
    with pytest.raises(ValueError, match="v must be floating, got int"):
        cd.gradient(KEY, params, rbm, jnp.ones((3, 4), jnp.int32))
    for name, value in (("weight_decay", -0.1), ("sparsity", -1.0), ("sparsity_target", 3.0)):
        with pytest.raises(ValueError, match=f"{name}: wanted .*, got {value}"):
            cd.gradient(KEY, params, rbm, jnp.ones((3, 4)), **{name: value})
