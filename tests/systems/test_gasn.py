"""The GASN against the formulas of the paper, summed over all strings of a small chain."""

import dataclasses
import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.learning import adversarial
from gasn_jax.structured import belief_propagation, chain, engine, graph
from gasn_jax.systems import gasn
from tests.compiling import FULLY

N, L, M = 4, 3, 6
KEY = jax.random.key(7)
PLAIN = gasn.GASNConfig(
    engine=engine.Chain(N, L),
    generator_hidden=(5,),
    discriminator_hidden=(4,),
    temperature=0.7,
    discriminator_rate=0.3,
    generator_rate=0.2,
)
VARIED = dataclasses.replace(PLAIN, variable_length=True)
# Everything that the paper does not use, at once.
OTHER = dataclasses.replace(
    PLAIN,
    activation="leaky_relu",
    window=3,
    loss="non_saturating",
    optimizer="adam",
    r1=0.5,
    average_decay=0.75,
)
STRAIGHT_THROUGH = dataclasses.replace(VARIED, discriminator_input="straight_through")
DTYPES = (np.float32, np.float64)
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-10}

step = jax.jit(gasn.train_step, static_argnums=0)
generate = jax.jit(gasn._generate, static_argnums=0)
sample = jax.jit(gasn.sample, static_argnums=0, static_argnames="mode")
beliefs = jax.jit(gasn.beliefs, static_argnums=0)


def random_batch(config, rng):
    lengths = np.full(M, config.engine.num_variables, np.int32)
    if config.variable_length:
        lengths = np.arange(M, dtype=np.int32) % config.engine.num_variables + 1
    states = rng.integers(
        config.engine.num_states, size=(M, config.engine.num_variables), dtype=np.int32
    )
    states = np.where(np.arange(config.engine.num_variables) < lengths[:, None], states, -1)
    return gasn.GASNBatch(jnp.asarray(states), jnp.asarray(lengths))


def inside(lengths):
    return np.arange(N) < np.asarray(lengths)[:, None]


def problem(config, dtype=np.float32, seed=0):
    """A state with random parameters, biases too, and a batch."""
    rng = np.random.default_rng(seed)
    state = jax.eval_shape(functools.partial(gasn.init, config), KEY)
    state = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), dtype), state)
    return state._replace(average=state.generator), random_batch(config, rng)


def assert_close(got, wanted, tolerance):
    chex.assert_trees_all_equal_dtypes(got, wanted)
    chex.assert_trees_all_close(got, wanted, rtol=0, atol=tolerance)


def assert_same(got, wanted):
    chex.assert_trees_all_equal(got, wanted)


# --- The same mathematics, written out: sums over all strings, no recursions, no shells. ---


def literal_mlp(params, x):
    hidden = jnp.tanh(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
    return hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]


def literal_beliefs(config, theta, z):
    n, s = config.engine.num_variables, config.engine.num_states
    scores = literal_mlp(theta["params"]["MLP_0"], z)
    unary, pairwise = scores[: n * s].reshape(n, s), scores[n * s :].reshape(n - 1, s, s)
    strings = np.array(list(itertools.product(range(s), repeat=n)))
    total = sum(unary[i][strings[:, i]] for i in range(n))
    total += sum(pairwise[i][strings[:, i], strings[:, i + 1]] for i in range(n - 1))
    p = jnp.exp(total / config.temperature)
    return jnp.einsum("x,xis->is", p / jnp.sum(p), jnp.asarray(np.eye(s)[strings]))


def literal_step(config, state, batch, key):
    """Equation 1 plus the penalty, descended in w, then ascended in theta, by autodiff."""

    z = gasn.noise(config, jax.random.split(key)[0], M)

    def equation_1(w, theta):
        fake = jnp.stack([literal_beliefs(config, theta, z[i]) for i in range(M)])
        real = jnp.asarray(np.eye(config.engine.num_states))[batch.states]

        @jax.vmap
        def d(x):
            return 1 / (1 + jnp.exp(-literal_mlp(w["params"]["MLP_0"], x.ravel())[0]))

        return jnp.mean(-jnp.log(d(real)) - jnp.log(1 - d(fake)))

    def regularised(w, theta):
        squares = [jnp.sum(leaf**2) for leaf in jax.tree.leaves(w)]
        return equation_1(w, theta) + config.weight_decay / 2 * sum(squares)

    w, theta = state.discriminator, state.generator
    objective, slope = jax.value_and_grad(regularised)(w, theta)
    w = jax.tree.map(lambda p, g: p - config.discriminator_rate * g, w, slope)
    slope = jax.grad(equation_1, 1)(w, theta)
    theta = jax.tree.map(lambda p, g: p + config.generator_rate * g, theta, slope)
    return w, theta, objective


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_is_the_papers(dtype):
    with jax.enable_x64(dtype == np.float64):
        state, batch = problem(PLAIN, dtype)
        w, theta, objective = jax.jit(functools.partial(literal_step, PLAIN))(state, batch, KEY)
        fully = jax.jit(gasn.train_step, static_argnums=0, compiler_options=FULLY)
        after, metrics = fully(PLAIN, state, batch, KEY)
        assert_close(after.discriminator, w, TOLERANCE[dtype])
        assert_close(after.generator, theta, TOLERANCE[dtype])
        np.testing.assert_allclose(metrics["objective"], objective, rtol=TOLERANCE[dtype])


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["jacobian", "conditioning"])
def test_all_routes_take_the_same_step(x64, gradient):
    state, batch = problem(STRAIGHT_THROUGH, np.float64)
    wanted, _ = step(STRAIGHT_THROUGH, state, batch, KEY)
    config = dataclasses.replace(STRAIGHT_THROUGH, gradient=gradient)
    got, _ = step(config, state, batch, KEY)
    assert_close(got.generator, wanted.generator, 1e-10)
    assert_same(got.discriminator, wanted.discriminator)
    moved = jax.tree.map(lambda a, b: np.max(np.abs(a - b)), wanted.generator, state.generator)
    assert min(jax.tree.leaves(moved)) > 1e-3  # every layer has a gradient to compare


@functools.partial(jax.jit, static_argnums=0)
def potentials_gradient(config, scores, lengths, weights):
    def weighed(scores):
        one = functools.partial(gasn.smoothed_generator, config)
        return jnp.sum(weights * jax.vmap(one)(*scores, lengths).unary)

    return jax.grad(weighed)(scores)


@pytest.mark.parametrize("gradient", ["jacobian", "conditioning"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("config", [PLAIN, VARIED], ids=["whole", "lengths"])
def test_all_routes_have_the_same_gradient_in_the_potentials(gradient, dtype, config):
    with jax.enable_x64(dtype == np.float64):
        rng = np.random.default_rng(2)
        shapes = (M, N, L), (M, N - 1, L, L), (M, N, L)
        unary, pairwise, weights = (jnp.asarray(rng.normal(size=s), dtype) for s in shapes)
        lengths = random_batch(config, rng).lengths
        args = (unary, pairwise), lengths, weights
        wanted = potentials_gradient(PLAIN, *args)
        got = potentials_gradient(dataclasses.replace(PLAIN, gradient=gradient), *args)
        assert_close(got, wanted, TOLERANCE[dtype])
        assert np.max(np.abs(wanted[1])) > 0.1
        outside = ~inside(lengths)
        assert not np.any(np.asarray(wanted[0])[outside])


@pytest.mark.slow
def test_jit_is_eager():
    state, batch = problem(STRAIGHT_THROUGH)
    wanted = gasn.train_step(STRAIGHT_THROUGH, state, batch, KEY)
    assert_close(step(STRAIGHT_THROUGH, state, batch, KEY), wanted, 1e-5)


@pytest.mark.slow
def test_seeds_side_by_side_are_seeds_one_by_one():
    pairs = [problem(STRAIGHT_THROUGH, seed=seed) for seed in range(3)]
    states, batches = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pairs)
    keys = jax.random.split(KEY, 3)
    side_by_side = jax.vmap(functools.partial(gasn.train_step, STRAIGHT_THROUGH))
    got = jax.jit(side_by_side)(states, batches, keys)
    for i, pair in enumerate(pairs):
        wanted = step(STRAIGHT_THROUGH, *pair, keys[i])
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], got), wanted, 1e-5)


def test_a_step_compiles_once():
    state, batch = problem(PLAIN)
    state, _ = step(PLAIN, state, batch, KEY)
    compiled = step._cache_size()
    for i in range(10):
        state, _ = step(PLAIN, state, batch, jax.random.fold_in(KEY, i))
    assert step._cache_size() == compiled


def test_straight_through_is_exactly_one_hot_with_the_gradient_of_the_marginals():
    state, batch = problem(VARIED)
    weights = np.random.default_rng(1).normal(size=(M, N, L)).astype(np.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def seen_and_gradient(config, params):
        seen, pull = jax.vjp(lambda p: gasn._generate(config, p, KEY, batch.lengths)[0], params)
        return seen, pull(jnp.asarray(weights))[0]

    # Parameters of many sizes: adding and subtracting a probability is exact by luck alone.
    for scale in (0.1, 0.5, 1.0, 2.0):
        params = jax.tree.map(lambda leaf, scale=scale: scale * leaf, state.generator)
        soft, wanted = seen_and_gradient(VARIED, params)
        hard, got = seen_and_gradient(STRAIGHT_THROUGH, params)
        used = inside(batch.lengths)
        assert np.all(np.isin(hard, [0.0, 1.0]))
        assert_same(np.sum(hard, -1), used.astype(np.float32))
        np.testing.assert_allclose(np.sum(soft, -1), used, atol=1e-6)
        assert np.all(np.asarray(soft)[~used] == 0)
        assert_same(got, wanted)


def test_straight_through_shows_samples_of_the_chain():
    config = dataclasses.replace(STRAIGHT_THROUGH, variable_length=False, noise_dim=0)
    state, _ = problem(config)
    lengths = jnp.full(20_000, N)
    seen, _ = generate(config, state.generator, KEY, lengths)
    p = beliefs(config, state.generator, KEY, lengths[:1]).unary[0]
    # Five standard errors of a share of 20 000.
    np.testing.assert_allclose(np.mean(seen, axis=0), p, atol=5 * 0.5 / np.sqrt(20_000))


@functools.partial(jax.jit, static_argnums=0)
def drawn_potentials(config, params, noise_key, lengths):
    z = gasn.noise(config, noise_key, len(lengths))
    return jax.vmap(lambda z, n: gasn.potentials(config, params, z, n))(z, lengths)


@jax.jit
@jax.vmap
def best_states(scores, length):
    return chain.argmax(*scores, length=length)[0]


def test_map_samples_are_the_argmax_of_the_chain():
    state, batch = problem(VARIED)
    got = sample(VARIED, state.generator, KEY, batch.lengths, mode="map").states
    scores = drawn_potentials(VARIED, state.generator, jax.random.split(KEY)[0], batch.lengths)
    wanted = best_states(scores, batch.lengths)
    assert_same(got, wanted)
    assert_same(got >= 0, inside(batch.lengths))


def test_samples_have_the_lengths_asked_for():
    state, batch = problem(VARIED)
    got = sample(VARIED, state.generator, KEY, batch.lengths).states
    assert got.dtype == np.int32 and np.max(got) < L
    assert_same(got >= 0, inside(batch.lengths))


def test_sample_refuses_an_unknown_mode():
    with pytest.raises(ValueError, match="mode must be sample or map, got 'mean'"):
        gasn.sample(PLAIN, {}, KEY, jnp.full(1, N), mode="mean")


def test_cold_marginals_are_the_map_assignment():
    state, batch = problem(VARIED)
    scores = drawn_potentials(VARIED, state.generator, KEY, batch.lengths)
    best = best_states(scores, batch.lengths)
    error = []
    for temperature in (1.0, 0.1, 1e-3):
        config = dataclasses.replace(VARIED, temperature=temperature)
        p = beliefs(config, state.generator, KEY, batch.lengths).unary
        error.append(np.max(np.abs(p - jax.nn.one_hot(best, L))))
    assert error[0] > 0.3 and error[1] < error[0] and error[2] < 1e-6


def test_the_length_reaches_the_generator():
    state, _ = problem(VARIED)
    z = jnp.array([0.2, 0.9])
    short, long = (gasn.potentials(VARIED, state.generator, z, jnp.int32(n)) for n in (2, 3))
    assert np.all(np.asarray(short[0]) != long[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        dict(noise_dim=0, pairwise=False, generator_hidden=()),
        dict(engine=engine.Chain(1, L), discriminator_hidden=(3, 3)),
        dict(engine=engine.Chain(N, 1), noise="normal"),
    ],
    ids=["no noise", "one variable", "one state"],
)
def test_a_step_of_other_shapes_is_finite(changes):
    config = dataclasses.replace(PLAIN, **changes)
    batch = random_batch(config, np.random.default_rng(0))
    state = jax.jit(gasn.init, static_argnums=0)(config, KEY)
    after, metrics = step(config, state, batch, KEY)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((after, metrics)))
    moved = jax.tree.map(lambda a, b: np.any(a != b), after.discriminator, state.discriminator)
    assert any(jax.tree.leaves(moved))


def test_without_noise_every_sample_is_the_same():
    config = dataclasses.replace(PLAIN, noise_dim=0)
    state, _ = problem(config)
    p = np.asarray(beliefs(config, state.generator, KEY, jnp.full(M, N)).unary)
    assert_same(p, np.broadcast_to(p[:1], p.shape))


@pytest.mark.slow
def test_without_pairwise_scores_variables_are_independent():
    config = dataclasses.replace(PLAIN, pairwise=False)
    state, _ = problem(config)
    p = beliefs(config, state.generator, KEY, jnp.full(M, N)).unary
    unary, _ = drawn_potentials(config, state.generator, KEY, jnp.full(M, N))
    np.testing.assert_allclose(p, jax.nn.softmax(unary / config.temperature), atol=1e-6)


def test_noise_is_what_the_config_says():
    uniform = np.asarray(gasn.noise(PLAIN, KEY, 4000))
    normal = np.asarray(gasn.noise(dataclasses.replace(PLAIN, noise="normal"), KEY, 4000))
    assert uniform.shape == normal.shape == (4000, 2)
    assert 0 <= uniform.min() < 0.01 and 0.99 < uniform.max() < 1
    np.testing.assert_allclose((normal.mean(), normal.std()), (0, 1), atol=0.05)


@pytest.mark.slow
def test_the_objective_holds_both_penalties():
    state, batch = problem(OTHER)
    _, metrics = step(OTHER, state, batch, KEY)
    fake, _ = generate(OTHER, state.generator, KEY, batch.lengths)
    real = jax.nn.one_hot(batch.states, L)

    def logit_fn(x):
        return gasn.logit(OTHER, state.discriminator, x)

    loss = adversarial.discriminator_loss(jax.vmap(logit_fn)(real), jax.vmap(logit_fn)(fake))
    weights = 0.05 * adversarial.l2_penalty(state.discriminator)
    slope = 0.5 * adversarial.r1_penalty(logit_fn, real)
    assert min(weights, slope) > 0.1
    np.testing.assert_allclose(metrics["objective"], loss + weights + slope, rtol=1e-5)
    assert metrics["gradient_residual"] == 0


def test_metrics_are_the_discriminators_mean_answers():
    state, batch = problem(PLAIN)
    _, metrics = step(PLAIN, state, batch, KEY)
    fake, converged = generate(PLAIN, state.generator, KEY, batch.lengths)
    assert converged == 1
    for name, x in (("real", jax.nn.one_hot(batch.states, L)), ("fake", fake)):
        logits = jax.vmap(lambda x: gasn.logit(PLAIN, state.discriminator, x))(x)
        wanted = np.mean(1 / (1 + np.exp(-np.asarray(logits))))
        np.testing.assert_allclose(metrics[f"{name}_probability"], wanted, rtol=1e-5)


@pytest.mark.parametrize("config", [PLAIN, OTHER], ids=lambda c: str(c.average_decay))
def test_the_average_follows_the_generator(config):
    state, batch = problem(config)
    old = jax.tree.map(lambda leaf: leaf + 1.0, state.generator)
    after, _ = step(config, state._replace(average=old), batch, KEY)
    if config.average_decay:
        wanted = jax.tree.map(lambda a, g: 0.75 * a + 0.25 * g, old, after.generator)
        assert_close(after.average, wanted, 1e-5)
    else:
        assert_same(after.average, after.generator)


def test_adam_moves_by_its_rate_at_first():
    state, batch = problem(OTHER)
    fresh = jax.tree.map(jnp.zeros_like, (state.generator_optimizer, state.discriminator_optimizer))
    state = state._replace(generator_optimizer=fresh[0], discriminator_optimizer=fresh[1])
    after, _ = step(OTHER, state, batch, KEY)
    for player, rate in (("discriminator", 0.3), ("generator", 0.2)):
        change = jax.tree.map(lambda a, b: a - b, getattr(after, player), getattr(state, player))
        for leaf in jax.tree.leaves(change):
            assert np.max(np.abs(leaf)) < 1.001 * rate
            np.testing.assert_allclose(np.median(np.abs(leaf)), rate, rtol=0.01)


PATH, SQUARE = graph.chain(N, L), graph.grid(2, 2, L)


@pytest.mark.parametrize(
    ("model", "tolerance"),
    [(engine.Tree(PATH), 1e-6), (engine.Grid(PATH, 1), 1e-6), (engine.Loopy(PATH), 1e-4)],
    ids=["tree", "grid", "loopy"],
)
def test_every_engine_on_a_path_is_the_chain(model, tolerance):
    state, batch = problem(PLAIN)
    wanted, _ = generate(PLAIN, state.generator, KEY, batch.lengths)
    config = dataclasses.replace(PLAIN, engine=model)
    got, converged = generate(config, state.generator, KEY, batch.lengths)
    assert_close(got, wanted, tolerance)
    assert converged == 1


@pytest.mark.slow
@pytest.mark.parametrize("model", [engine.Grid(SQUARE, 2), engine.Loopy(SQUARE)])
def test_a_step_on_a_grid(model):
    config = dataclasses.replace(STRAIGHT_THROUGH, engine=model, variable_length=False)
    state, batch = problem(config)
    after, metrics = step(config, state, batch, KEY)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((after, metrics)))
    changed = jax.tree.map(lambda a, b: np.any(a != b), after.generator, state.generator)
    assert all(jax.tree.leaves(changed)) and metrics["converged"] == 1
    for mode in ("sample", "map"):
        states, reliable = sample(config, state.generator, KEY, batch.lengths, mode=mode)
        assert states.shape == (M, N) and np.all((states >= 0) & (states < L))
        assert reliable.shape == (M,) and (mode == "map" or np.all(reliable))


@pytest.mark.slow
def test_what_did_not_converge_is_in_the_metrics():
    hasty = belief_propagation.Solver(num_steps=1, acceleration=0)
    config = dataclasses.replace(PLAIN, engine=engine.Loopy(SQUARE, solver=hasty))
    state, batch = problem(config)
    metrics = step(config, state, batch, KEY)[1]
    assert metrics["converged"] < 1 and 0 < metrics["gradient_residual"] < 1e-5
    # Nor does it go unseen between two lines of a log.
    state = state._replace(worst=jnp.array([0.0, 0.5]))
    metrics = step(config, state, batch, KEY)[1]
    assert metrics["lowest_converged"] == 0 and metrics["highest_gradient_residual"] == 0.5
    after, metrics = step(config, state._replace(worst=jnp.array([1.0, 0.0])), batch, KEY)
    assert tuple(after.worst) == (metrics["converged"], metrics["gradient_residual"])
    assert not np.all(sample(config, state.generator, KEY, batch.lengths).reliable)


@pytest.mark.slow
def test_conditioning_is_another_route_to_the_gradient_of_an_exact_grid():
    product = dataclasses.replace(PLAIN, engine=engine.Grid(SQUARE, 2))
    conditioned = dataclasses.replace(product, gradient="conditioning")
    state, batch = problem(product)
    one, other = (step(c, state, batch, KEY)[0].generator for c in (product, conditioned))
    assert_close(other, one, 1e-5)


IMAGE = dataclasses.replace(
    PLAIN, engine=engine.Loopy(graph.grid(4, 8, 2)), network="convolutional", height=4, r1=0.5
)


@pytest.mark.slow
@pytest.mark.parametrize("pairwise", [True, False])
def test_a_step_of_convolutional_players(pairwise):
    fields = dict(generator_hidden=(3, 2), discriminator_hidden=(2, 3), pairwise=pairwise)
    config = dataclasses.replace(IMAGE, **fields)
    state, batch = problem(config)
    after, metrics = step(config, state, batch, KEY)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((after, metrics)))
    changed = jax.tree.map(lambda a, b: np.any(a != b), after.generator, state.generator)
    assert all(jax.tree.leaves(changed))


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (VARIED, dict(engine=engine.Tree(PATH)), "variable_length: wanted False but for chains"),
        (
            PLAIN,
            dict(engine=engine.Grid(SQUARE, 2), gradient="jacobian"),
            "gradient: wanted jacobian of chains only",
        ),
        (IMAGE, dict(height=3), "height: wanted a divisor of the 32 variables, got 3"),
        (IMAGE, dict(height=2), "engine: wanted of a 2x16 grid with 4 neighbours, got Loopy"),
        (IMAGE, dict(engine=engine.Chain(32, 2)), r"engine: wanted of a 4x8 .*, got Chain\("),
        (IMAGE, dict(window=3), "window: wanted 1 with convolutional players, got 3"),
        (IMAGE, dict(generator_hidden=()), r"generator_hidden: wanted a layer, got \(\)"),
        (
            IMAGE,
            dict(discriminator_hidden=(2, 2, 2)),
            r"discriminator_hidden: wanted so few layers that 4x8 can be halved by all, got \(2, 2",
        ),
        (
            IMAGE,
            dict(generator_hidden=(2, 2, 2, 2)),
            "generator_hidden: wanted .* can be halved by all but the first, got",
        ),
    ],
)
def test_engines_and_networks_that_do_not_fit(config, fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **fields)


def test_the_paper_is_the_default_but_for_its_penalty():
    config = gasn.GASNConfig()
    state = jax.eval_shape(functools.partial(gasn.init, config), KEY)
    shapes = [sorted(leaf.shape for leaf in jax.tree.leaves(player)) for player in state[:2]]
    # 2 numbers -> 10 tanh -> 5 x 2 + 4 x 2 x 2 scores; 5 x 2 beliefs -> 10 tanh -> 1 logit.
    assert shapes[0] == [(2, 10), (10,), (10, 26), (26,)]
    assert shapes[1] == [(1,), (10,), (10, 1), (10, 10)]
    assert (config.temperature, config.loss, config.noise) == (0.1, "saturating", "uniform")
    assert (config.activation, config.optimizer, config.gradient) == ("tanh", "sgd", "product")
    assert config.weight_decay == 0.05  # not the paper's


def test_a_fresh_state_shares_no_buffers():
    state = gasn.init(PLAIN, KEY)
    assert_same(state.average, state.generator)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(buffers)) == len(buffers)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("noise_dim", -1, ">= 0"),
        ("window", 0, ">= 1"),
        ("generator_hidden", (10, 0), "widths >= 1"),
        ("discriminator_hidden", (-1,), "widths >= 1"),
        ("temperature", 0.0, "> 0 and within float32"),
        ("temperature", 1e-60, "> 0 and within float32"),
        ("temperature", float("nan"), "> 0 and within float32"),
        ("output_scale", -0.1, ">= 0 and finite"),
        ("weight_decay", -1.0, ">= 0 and finite"),
        ("r1", float("inf"), ">= 0 and finite"),
        ("discriminator_rate", 0.0, "> 0 and within float32"),
        ("generator_rate", 1e300, "> 0 and within float32"),
        ("average_decay", 1.0, "in [0, 1)"),
        ("noise", "gaussian", "one of uniform, normal"),
        ("activation", "gelu", "one of tanh, relu, leaky_relu"),
        ("discriminator_input", "map", "one of marginals, straight_through"),
        ("gradient", "exact", "one of product, jacobian, conditioning"),
        ("loss", "hinge", "one of saturating, non_saturating"),
        ("optimizer", "lbfgs", "one of sgd, adam"),
        ("network", "recurrent", "one of dense, convolutional"),
    ],
)
def test_a_bad_config_names_field_wanted_and_got(name, value, wanted):
    with pytest.raises(ValueError) as caught:
        gasn.GASNConfig(**{name: value})
    assert str(caught.value) == f"{name}: wanted {wanted}, got {value!r}"
