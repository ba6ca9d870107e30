import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.nn import mlp

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
NUMPY_ACTIVATIONS = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
}


def with_random_params(module, x):
    """Parameters of the module with no zeros among them (biases start as zeros)."""
    shapes = jax.eval_shape(module.init, KEY, x)
    return jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape).astype(np.float32), shapes)


def dense(params, name, x):
    return x @ params[name]["kernel"] + params[name]["bias"]


@pytest.mark.parametrize("activation", NUMPY_ACTIVATIONS)
def test_mlp_is_layers_with_activations_between(activation):
    module = mlp.MLP((4, 5, 2), activation)
    x = RNG.normal(size=3).astype(np.float32)
    variables = with_random_params(module, x)
    params, act = variables["params"], NUMPY_ACTIVATIONS[activation]
    hidden = act(dense(params, "Dense_1", act(dense(params, "Dense_0", x))))
    np.testing.assert_allclose(
        module.apply(variables, x), dense(params, "Dense_2", hidden), rtol=1e-5
    )


def test_all_activations_are_tested():
    assert set(mlp.ACTIVATIONS) == set(NUMPY_ACTIVATIONS)


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 3.0])
def test_output_scale_scales_the_last_kernel_alone(scale):
    x, widths = jnp.zeros(20), (30, 400, 500)
    plain = mlp.MLP(widths).init(KEY, x)["params"]
    scaled = mlp.MLP(widths, output_scale=scale).init(KEY, x)["params"]
    np.testing.assert_allclose(
        scaled["Dense_2"]["kernel"], scale * plain["Dense_2"]["kernel"], rtol=1e-5
    )
    np.testing.assert_allclose(
        jnp.std(scaled["Dense_2"]["kernel"]), scale / np.sqrt(400), rtol=0.02, atol=0
    )
    for name in ("Dense_0", "Dense_1"):
        np.testing.assert_array_equal(scaled[name]["kernel"], plain[name]["kernel"])
        assert not np.any(scaled[name]["bias"])
    np.testing.assert_allclose(jnp.std(plain["Dense_1"]["kernel"]), 1 / np.sqrt(30), rtol=0.02)


@pytest.mark.parametrize("num_variables", [1, 4])
@pytest.mark.parametrize("pairwise", [True, False])
def test_chain_potentials_are_the_outputs_in_order(num_variables, pairwise):
    n, s = num_variables, 3
    module = mlp.PairwisePotentials(n, s, n - 1, hidden=(6,), pairwise=pairwise)
    z = RNG.normal(size=2).astype(np.float32)
    variables = with_random_params(module, z)
    unary, edges = module.apply(variables, z)
    params = variables["params"]["MLP_0"]
    scores = dense(params, "Dense_1", np.tanh(dense(params, "Dense_0", z)))
    assert (unary.shape, edges.shape) == ((n, s), (n - 1, s, s))
    np.testing.assert_allclose(unary.ravel(), scores[: n * s], rtol=1e-5)
    if pairwise:
        np.testing.assert_allclose(edges.ravel(), scores[n * s :], rtol=1e-5)
    else:
        assert scores.size == n * s and not np.any(edges)


def test_chain_potentials_scale_their_outputs():
    z = jnp.array([0.3, -0.7])
    one, tenth = (
        module.apply(module.init(KEY, z), z)
        for module in (mlp.PairwisePotentials(5, 2, 4, output_scale=scale) for scale in (1.0, 0.1))
    )
    for large, small in zip(one, tenth, strict=True):
        assert np.all(np.asarray(large) != 0)
        np.testing.assert_allclose(small, 0.1 * large, rtol=1e-5, atol=1e-7)


def test_chain_potentials_without_noise_are_constants():
    module = mlp.PairwisePotentials(3, 2, 2, hidden=(4,))
    variables = module.init(KEY, jnp.zeros(0))
    unary, edges = module.apply(variables, jnp.zeros(0))
    # Only biases reach the output, and they start as zeros.
    assert (unary.shape, edges.shape) == ((3, 2), (2, 2, 2))
    assert not np.any(unary) and not np.any(edges)


@pytest.mark.parametrize(("num_variables", "window"), [(6, 1), (6, 2), (6, 3), (1, 3), (2, 4)])
def test_critic_sees_the_whole_and_every_window(num_variables, window):
    n, s = num_variables, 3
    module = mlp.SequenceCritic(hidden=(5,), window=window, window_features=4)
    x = RNG.normal(size=(n, s)).astype(np.float32)
    variables = with_random_params(module, x)
    params = variables["params"]
    inputs = [x.ravel()]
    if window > 1:
        # Every run of neighbours that touches the sequence, zeros beyond its ends.
        rows = {i: x[i] for i in range(n)}
        features = []
        for start in range(1 - window, n):
            run = [rows.get(i, np.zeros(s)) for i in range(start, start + window)]
            features.append(np.tanh(dense(params, "Dense_0", np.concatenate(run))))
        inputs.append(np.mean(features, axis=0))
    hidden = np.tanh(dense(params["MLP_0"], "Dense_0", np.concatenate(inputs)))
    wanted = dense(params["MLP_0"], "Dense_1", hidden)[0]
    logit = module.apply(variables, x)
    assert logit.shape == ()
    np.testing.assert_allclose(logit, wanted, rtol=2e-5, atol=1e-5)


def test_critic_of_the_paper_is_one_hidden_layer_of_ten():
    shapes = jax.eval_shape(mlp.SequenceCritic().init, KEY, jnp.zeros((5, 2)))
    assert {leaf.shape for leaf in jax.tree.leaves(shapes)} == {(10, 10), (10,), (10, 1), (1,)}
