"""The AAN's step against the paper's formulas, its choices, its samples, and that it learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.energy import contrastive_divergence as cd
from gasn_jax.energy import gibbs
from gasn_jax.energy import rbm as rbms
from gasn_jax.learning import adversarial
from gasn_jax.systems import aan

KEY = jax.random.key(0)
M = 6
PLAIN = aan.AANConfig(
    height=8, width=4, num_channels=2, num_visible=5, num_hidden=3, channels=(4, 3), hidden=(6,)
)
step = jax.jit(aan.train_step, static_argnums=0)


def problem(config, seed=0):
    rng = np.random.default_rng(seed)
    shape = (M, config.height, config.width, config.num_channels)
    images = jnp.asarray(rng.uniform(-1, 1, size=shape), jnp.float32)
    state = aan.init(config, KEY, M)
    memory = jax.tree.map(
        lambda x: x + jnp.asarray(0.5 * rng.normal(size=x.shape), jnp.float32), state.memory
    )
    return state._replace(memory=memory), images


def change(config, **fields):
    return dataclasses.replace(config, **fields)


def assert_close(got, wanted, tolerance=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance), got, wanted)


def inputs_of(config, state, images, key):
    """What the generator gets in a step, and the memory's gradient; put together by hand."""
    clamp_key, memory_key, draw_key = jax.random.split(key, 3)
    if config.memory == "uniform":
        shape = (M, config.num_visible)
        return jax.random.uniform(draw_key, shape, minval=-1.0, maxval=1.0), None
    v = jax.vmap(lambda x: aan.discriminate(config, state.discriminator, x)[0])(images)
    if config.visible == "spin":
        uniform = jax.random.uniform(clamp_key, v.shape, minval=-1.0, maxval=1.0)
        v = jnp.where(uniform < v, 1.0, -1.0)
    chains = state.chains if config.persistent else v
    options = dict(chains=gibbs.State(chains), num_steps=config.num_gibbs_steps)
    options["means"] = config.visible == "mean"
    found = cd.gradient(memory_key, state.memory, config.rbm, v, **options)
    seen = found.visible_mean if config.visible == "mean" else found.chains.v
    gradient = found.gradient
    if config.entropy_weight:
        extra = cd.entropy_gradient(state.memory, config.rbm, found.chains.v)
        gradient = jax.tree.map(lambda g, e: g + config.entropy_weight * e, gradient, extra)
    return seen, gradient


CHOICES = [
    PLAIN,
    change(
        PLAIN,
        visible="spin",
        persistent=True,
        num_gibbs_steps=3,
        loss="non_saturating",
        r1=0.5,
        normalised=True,
    ),  # fmt: skip
    change(PLAIN, entropy_weight=0.7, memory_momentum=0.0),
    change(PLAIN, memory="uniform"),
]


@pytest.mark.slow
@pytest.mark.parametrize("config", CHOICES, ids=["paper", "spin", "entropy", "uniform"])
def test_a_step_is_that_of_the_formulas(config):
    state, images = problem(config)
    after, metrics = step(config, state, images, KEY)
    # The step's discriminator has the new statistics.
    kept_up = state.discriminator | {k: x for k, x in after.discriminator.items() if k != "params"}
    state = state._replace(discriminator=kept_up)
    inputs, gradient = inputs_of(config, state, images, KEY)

    def logit(variables):
        return jax.vmap(lambda x: aan.discriminate(config, variables, x)[1])

    def value(discriminator, generator):
        """Equation 1 without the memory's term."""
        fake = aan.generate(config, generator, inputs)
        real_p = jax.nn.sigmoid(logit(discriminator)(images))
        fake_p = jax.nn.sigmoid(logit(discriminator)(fake))
        return jnp.mean(jnp.log(real_p)) + jnp.mean(jnp.log(1 - fake_p)), (real_p, fake_p)

    def objective(discriminator):
        penalty = adversarial.r1_penalty(lambda x: logit(discriminator)(x[None])[0], images)
        return -value(discriminator, state.generator)[0] + config.r1 * penalty

    descent = jax.grad(objective)(state.discriminator)["params"]
    # Adam's first moment after one step with b1 = 0.5 is half the gradient.
    assert_close(after.discriminator_optimizer[0].mu, jax.tree.map(lambda g: 0.5 * g, descent))

    def loss(generator):
        if config.loss == "saturating":
            return value(after.discriminator, generator)[0]
        return -jnp.mean(jnp.log(value(after.discriminator, generator)[1][1]))

    ascent = jax.grad(loss)(state.generator)
    assert_close(after.generator_optimizer[0].mu, jax.tree.map(lambda g: 0.5 * g, ascent))
    real_p, fake_p = value(state.discriminator, state.generator)[1]
    np.testing.assert_allclose(metrics["objective"], objective(state.discriminator), rtol=1e-5)
    means = metrics["real_log_probability"], metrics["fake_log_probability"]
    np.testing.assert_allclose(means, (np.log(real_p).mean(), np.log(fake_p).mean()), rtol=1e-5)
    if gradient is None:
        assert_close((after.memory, after.chains), (state.memory, state.chains), 0)
        assert "free_energy_gap" not in metrics
    else:
        wanted = jax.tree.map(lambda p, g: p - 1e-3 * g, state.memory, gradient)
        assert_close(after.memory, wanted, 1e-6)
        assert np.all(np.abs(after.chains) == 1) and np.isfinite(metrics["free_energy_gap"])
    for player in ("generator", "discriminator"):
        before, now = getattr(state, player)["params"], getattr(after, player)["params"]
        moved = jax.tree.map(lambda a, b: np.any(a != b), before, now)
        assert all(jax.tree.leaves(moved))


@pytest.mark.slow
def test_normalised_features_forget_what_all_images_share():
    config = CHOICES[1]
    state, images = problem(config)
    network = aan._discriminator(config)
    received = jax.vmap(lambda x: network.apply(state.discriminator, x, method="received"))(images)
    after, _ = step(config, state, images, KEY)
    for name, batch, start in (("mean", received.mean(0), 0), ("variance", received.var(0), 1)):
        got = after.discriminator["statistics"][name]
        np.testing.assert_allclose(got, 0.9 * start + 0.1 * batch, rtol=1e-4, atol=1e-6)
    settled = {"mean": received.mean(0), "variance": received.var(0)}
    variables = state.discriminator | {"statistics": settled}
    features = jax.vmap(lambda x: aan.discriminate(config, variables, x)[0])(images)
    np.testing.assert_allclose(np.arctanh(features).mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.arctanh(features).std(0), 1, rtol=0.05)


@pytest.mark.slow
def test_momentum_gathers():
    state, images = problem(PLAIN)
    first, _ = step(PLAIN, state, images, KEY)
    gradient = inputs_of(PLAIN, state, images, KEY)[1]
    other = jax.random.key(1)
    second, _ = step(PLAIN, first, images, other)
    more = inputs_of(PLAIN, first, images, other)[1]
    wanted = jax.tree.map(lambda p, g, h: p - 1e-3 * (0.8 * g + h), first.memory, gradient, more)
    assert_close(second.memory, wanted, 1e-6)


@pytest.mark.parametrize("config", [PLAIN, CHOICES[1], CHOICES[3]], ids=["mean", "spin", "uniform"])
def test_samples_need_no_data(config):
    state, _ = problem(config)
    draw = jax.jit(aan.sample, static_argnums=(0, 3), static_argnames="num_gibbs_steps")
    images = draw(config, state, KEY, 4, num_gibbs_steps=5)
    assert images.shape == (4, 8, 4, 2) and np.all(np.abs(images) < 1)
    assert_close(images, draw(config, state, KEY, 4, num_gibbs_steps=5), 0)
    assert np.any(images != draw(config, state, jax.random.key(1), 4, num_gibbs_steps=5))


@pytest.mark.slow
def test_many_samples_are_painted_in_parts(monkeypatch):
    state, _ = problem(PLAIN)
    whole = aan.sample(PLAIN, state, KEY, 7, num_gibbs_steps=2)
    monkeypatch.setattr(aan, "_AT_ONCE", 3)
    assert_close(aan.sample(PLAIN, state, KEY, 7, num_gibbs_steps=2), whole)


@pytest.mark.parametrize("visible", ["mean", "spin"])
def test_a_walk_starts_at_the_features_of_its_image(visible):
    config = change(PLAIN, visible=visible)
    state, images = problem(config)
    # A memory that copies: each hidden unit holds a visible one, and gives it back.
    weights = 200.0 * jnp.eye(5)
    config = change(config, num_hidden=5)
    memory = {"weights": weights, "visible_bias": jnp.zeros(5), "hidden_bias": jnp.zeros(5)}
    state = state._replace(memory=memory)
    found = aan.walk(config, state, KEY, images[0], num_steps=4)
    assert found.visible.shape == (4, 5) and found.images.shape == (4, 8, 4, 2)
    if visible == "mean":
        features = aan.discriminate(config, state.discriminator, images[0])[0]
        sure = np.abs(features) > 0.03
        assert np.any(sure)
        assert_close(found.visible[:, sure], np.tile(np.sign(features[sure]), (4, 1)), 1e-3)
    else:
        assert_close(found.visible, np.tile(found.visible[0], (4, 1)), 0)
        assert np.all(np.abs(found.visible) == 1)
    features = aan.discriminate(config, state.discriminator, images[0])[0]
    if visible == "mean":
        assert_close(found.start, features)
    else:
        assert np.all(np.abs(found.start) == 1)
    assert_close(found.images, aan.generate(config, state.generator, found.visible))
    with pytest.raises(ValueError, match="memory must be rbm, got 'uniform'"):
        aan.walk(change(config, memory="uniform"), state, KEY, images[0], num_steps=4)
    with pytest.raises(ValueError, match="num_steps: wanted >= 1, got 0"):
        aan.walk(config, state, KEY, images[0], num_steps=0)
    with pytest.raises(ValueError, match="num_samples: wanted >= 1, got -1"):
        aan.sample(config, state, KEY, -1)
    with pytest.raises(ValueError, match="batch_size: wanted >= 1, got 0"):
        aan.init(config, KEY, 0)


@pytest.mark.slow
def test_the_memory_learns_the_features_and_the_generator_both_kinds_of_images():
    """Without the entropy's weight memory and generator collapse to one of them."""
    config = aan.AANConfig(
        height=8, width=8, num_channels=1, num_visible=16, num_hidden=16, channels=(8,),
        hidden=(16,), r1=0.3, discriminator_rate=2e-3, generator_rate=2e-3, memory_rate=0.02,
        visible="spin", entropy_weight=1.0, loss="non_saturating",
    )  # fmt: skip
    kinds = np.ones((2, 8, 8, 1), np.float32)
    kinds[0, :, :4] = kinds[1, :4] = -1
    images = jnp.asarray(kinds[np.arange(32) % 2])

    def body(state, key):
        return aan.train_step(config, state, images, key)

    state, metrics = jax.jit(lambda state, keys: jax.lax.scan(body, state, keys, unroll=4))(
        aan.init(config, KEY, 32), jax.random.split(KEY, 1000)
    )
    drawn = np.asarray(aan.sample(config, state, KEY, 64))
    distance = np.abs(drawn[:, None] - kinds[None]).mean(axis=(2, 3, 4))
    nearest = np.argmin(distance, axis=1)
    assert distance.min(axis=1).mean() < 0.3
    assert 8 <= nearest.sum() <= 56
    features = jax.vmap(lambda x: aan.discriminate(config, state.discriminator, x)[0])(images)
    spins = jnp.sign(features)
    fresh = aan.init(config, KEY, 32).memory
    learned, before = (rbms.log_likelihood(m, config.rbm, spins) for m in (state.memory, fresh))
    assert learned > before + 1.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(height=10), r"height: wanted a positive multiple of 4, to be halved by every layer"),
        (dict(width=0), "width: wanted"),
        (dict(memory="dbm"), "memory: wanted one of rbm, uniform, got 'dbm'"),
        (dict(visible="real"), "visible: wanted one of mean, spin"),
        (dict(num_gibbs_steps=0), "num_gibbs_steps: wanted an integer >= 1, got 0"),
        (dict(num_visible=2.5), "num_visible: wanted an integer >= 1, got 2.5"),
        (dict(channels=()), "channels: wanted a layer"),
        (dict(channels=(3, 0)), "channels: wanted widths >= 1"),
        (dict(memory_momentum=1.0), r"memory_momentum: wanted in \[0, 1\), got 1.0"),
        (dict(entropy_weight=-1.0), "entropy_weight: wanted >= 0"),
        (dict(memory_rate=float("nan")), "memory_rate: wanted > 0"),
    ],
)
def test_bad_configs_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        change(PLAIN, **fields)


def test_images_of_another_shape_are_refused():
    state, images = problem(PLAIN)
    with pytest.raises(ValueError, match=r"images must have shape \[m, 8, 4, 2\], got \(6, 8, 4\)"):
        aan.train_step(PLAIN, state, images[..., 0], KEY)
    with pytest.raises(ValueError, match="images must be floating, got uint8"):
        aan.train_step(PLAIN, state, images.astype(jnp.uint8), KEY)
    with pytest.raises(ValueError, match=r"images must have shape \[8, 4, 2\], got \(6, 8, 4, 2\)"):
        aan.discriminate(PLAIN, state.discriminator, images)
    with pytest.raises(ValueError, match="images must be floating, got uint8"):
        aan.walk(PLAIN, state, KEY, images[0].astype(jnp.uint8), num_steps=2)


@pytest.mark.parametrize("config", [PLAIN, CHOICES[1]], ids=["mean", "spin"])
def test_images_out_of_range_give_no_number(config):
    state, images = problem(config)
    _, metrics = step(config, state, images.at[2, 0, 0, 0].set(1.5), KEY)
    assert np.isnan(metrics["objective"])
    walk = jax.jit(aan.walk, static_argnums=0, static_argnames="num_steps")
    for x in walk(config, state, KEY, 255 * images[0], num_steps=2):
        assert np.all(np.isnan(x))


@pytest.mark.slow
def test_the_papers_networks_have_the_papers_sizes():
    config = aan.AANConfig(num_visible=1000)
    shapes = jax.eval_shape(lambda: aan.init(config, KEY, 256))
    images = jax.ShapeDtypeStruct((256, 64, 64, 3), jnp.float32)
    after, _ = jax.eval_shape(lambda s, x: aan.train_step(config, s, x, KEY), shapes, images)
    assert after == shapes
    sizes = {name: x.shape for name, x in shapes.memory.items()}
    assert sizes["weights"] == (1000, 100) and shapes.chains.shape == (256, 1000)
    kernels = shapes.discriminator["params"]
    assert [kernels[f"convolutions_{i}"]["kernel"].shape[-1] for i in range(4)] == [
        64,
        128,
        256,
        512,
    ]
    assert kernels["dense"]["kernel"].shape == (4 * 4 * 512, 1000)
    assert kernels["classifier"]["Dense_1"]["kernel"].shape == (500, 500)
