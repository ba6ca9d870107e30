"""Projected ascent against the formula step by step, its options, and its derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.energy import gradient_inference as gi

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(6, 6))
MATRIX = -0.1 * MATRIX @ MATRIX.T - np.eye(6)
TARGET = np.array([0.2, 0.9, -0.5, 1.4, 0.5, 0.0])


def value(y, target=TARGET):
    """Concave; the best point of the box is not the best of all."""
    return 0.5 * (y - target) @ MATRIX @ (y - target)


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_the_steps_are_those_of_the_formula(normalize, momentum, unroll):
    sizes = np.linspace(0.3, 0.1, 5)
    found = gi.maximize(
        value, jnp.full(6, 0.5), num_steps=5, step_size=sizes, normalize=normalize,
        momentum=momentum, unroll=unroll,
    )  # fmt: skip
    y, direction, wanted = np.full(6, 0.5), np.zeros(6), [np.full(6, 0.5)]
    for size in sizes:
        gradient = MATRIX @ (y - TARGET)
        direction = momentum * direction + (
            gradient / np.linalg.norm(gradient) if normalize else gradient
        )
        y = np.clip(y + size * direction, 0, 1)
        wanted.append(y)
    np.testing.assert_allclose(found.trajectory, wanted, atol=1e-12)
    np.testing.assert_allclose(found.values, [value(y) for y in wanted], atol=1e-12)
    np.testing.assert_array_equal(found.y, found.trajectory[-1])
    assert found.num_steps == 5


def test_it_finds_the_best_point_of_the_box():
    best = gi.maximize(value, jnp.zeros(6), num_steps=2000, step_size=0.1).y
    gradient = MATRIX @ (best - TARGET)
    inside = (best > 0) & (best < 1)
    np.testing.assert_allclose(gradient[inside], 0, atol=1e-9)
    assert np.all(gradient[np.asarray(best == 1)] >= 0) and inside.any() and np.any(best == 1)


def test_any_projection_takes_its_place():
    start = jnp.full((3, 2), 0.5)
    found = gi.maximize(
        lambda y: value(y.ravel()), start, num_steps=50, step_size=0.1, projection=gi.simplex
    )
    np.testing.assert_allclose(found.trajectory.sum(axis=2), 1)
    assert np.all(found.trajectory >= 0) and found.values[-1] > found.values[0]
    far = RNG.normal(size=(4, 3, 5)) * 3
    for point, nearest in zip(far.reshape(-1, 5), gi.simplex(far).reshape(-1, 5), strict=True):
        # the nearest point of a simplex is max(0, x - t) with sum 1
        shift = (point - nearest)[nearest > 0]
        np.testing.assert_allclose(shift, shift[0], atol=1e-9)
        assert np.all(point[nearest == 0] <= shift[0] + 1e-9)
    sphere = gi.maximize(
        value,
        jnp.eye(6)[0],
        num_steps=3,
        step_size=0.1,
        projection=lambda y: y / jnp.linalg.norm(y),
    )
    np.testing.assert_allclose(jnp.linalg.norm(sphere.trajectory, axis=1), 1)


def test_half_precision_is_normalised_too():
    for gradient in (jnp.full(2, 1e-6), jnp.full(2, 6e-8), jnp.ones((256, 256))):
        found = gi.normalized(gradient.astype(jnp.float16))
        assert found.dtype == jnp.float16
        np.testing.assert_allclose(found, gradient.size**-0.5, rtol=1e-3)


def test_half_precision_is_projected_too():
    for dtype in (jnp.float16, jnp.bfloat16):
        for projection, wanted in ((gi.box, [1.0, 0.3]), (gi.simplex, [0.9, 0.1])):
            found = gi.maximize(
                lambda y: y[0], jnp.array([0.7, 0.3], dtype), num_steps=1, step_size=0.4,
                projection=projection,
            )  # fmt: skip
            assert found.y.dtype == dtype
            np.testing.assert_allclose(found.y.astype(float), wanted, atol=1e-2)


def test_float32_agrees_with_float64_at_size():
    rng = np.random.default_rng(1)
    half, start = rng.normal(size=(300, 40)), rng.random((16, 300))

    @functools.partial(jax.jit, static_argnames="normalize")
    def ascend(half, start, *, normalize):
        def value(y):
            return jnp.tanh(jnp.mean(jnp.tanh(y @ half / 4)) - jnp.mean(y**2))

        step_size = 0.3 if normalize else 30.0
        return jax.vmap(
            lambda y: gi.maximize(value, y, num_steps=20, step_size=step_size, normalize=normalize)
        )(start)

    for normalize in (True, False):
        wanted = ascend(half, start, normalize=normalize)
        found = ascend(half.astype("f"), start.astype("f"), normalize=normalize)
        assert found.y.dtype == jnp.float32 and np.all(np.ptp(wanted.values, axis=1) > 0.01)
        np.testing.assert_allclose(found.trajectory, wanted.trajectory, atol=2e-4)
        np.testing.assert_allclose(found.values, wanted.values, atol=1e-5)


def test_a_zero_gradient_is_exact():
    def flat(y, scale):
        return scale * jnp.sum(jnp.maximum(0.0, y - 2) ** 2)

    def end(y, scale):
        options = dict(num_steps=3, step_size=0.3, normalize=True)
        return gi.maximize(lambda y: flat(y, scale), y, **options).y.sum()

    y = jnp.array([0.1, 0.7])
    assert end(y, 1.0) == y.sum()
    for order in (jax.grad(end, argnums=(0, 1)), jax.hessian(end)):
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(order(y, 1.0)))
    np.testing.assert_array_equal(jax.grad(end)(y, 1.0), 1.0)
    np.testing.assert_allclose(gi.normalized(jnp.array([3.0, 4.0])), [0.6, 0.8])


def test_a_gradient_that_is_no_number_is_seen():
    found = gi.maximize(
        lambda y: jnp.sum(jnp.sqrt(y - y)), jnp.full(2, 0.5), num_steps=2, step_size=0.3,
        normalize=True,
    )  # fmt: skip
    assert found.values[0] == 0 and np.all(np.isnan(found.y)) and np.isnan(found.values[-1])


@pytest.mark.parametrize(("dtype", "own"), [("bfloat16", "float32"), ("float32", "float64")])
def test_the_value_may_be_of_another_precision(dtype, own):
    def mean(y):
        return jnp.mean(y.astype(own))

    found = gi.maximize(mean, jnp.zeros(4, dtype), num_steps=3, step_size=0.25, normalize=True)
    assert found.y.dtype == dtype and found.values.dtype == own
    np.testing.assert_allclose(found.values, [0, 0.125, 0.25, 0.375], rtol=1e-6)
    with pytest.raises(ValueError, match="y must be floating, got int"):
        gi.maximize(mean, jnp.zeros(4, int), num_steps=1, step_size=0.1)


@pytest.mark.parametrize("size", [1e-37, 1e-30, 1.0, 1e25, 1e37, 4e37, 8.5e37])
def test_lengths_of_any_size_are_divided_out_in_float32(size):
    found = jax.jit(gi.normalized)(jnp.asarray([3 * size, 4 * size], jnp.float32))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, [0.6, 0.8], rtol=1e-5)


def test_patience_stops_and_gives_the_best():
    """Steps that are too long jump about the optimum."""
    options = dict(num_steps=40, step_size=0.5, normalize=True)
    found = gi.maximize(value, jnp.zeros(6), patience=3, **options)
    steps = int(found.num_steps)
    assert 3 <= steps < 40
    free = gi.maximize(value, jnp.zeros(6), **options)
    np.testing.assert_array_equal(found.values[: steps + 1], free.values[: steps + 1])
    stopped = np.broadcast_to(found.trajectory[steps], found.trajectory[steps:].shape)
    np.testing.assert_array_equal(found.trajectory[steps:], stopped)
    np.testing.assert_array_equal(found.values[steps:-1], found.values[steps])
    # the last value is of another program, which on a GPU rounds otherwise
    np.testing.assert_allclose(found.values[-1], found.values[steps], rtol=1e-14)
    best = int(np.argmax(found.values))
    assert steps - best == 3
    np.testing.assert_array_equal(found.y, found.trajectory[best])
    patient = gi.maximize(value, jnp.zeros(6), patience=50, **options)
    assert patient.num_steps == 40 and value(patient.y) == patient.values.max()


@pytest.mark.parametrize("patience", [None, 3])
def test_nan_is_not_hidden(patience):
    """The square root's slope at 0 is infinite, and times 0 no number."""
    found = gi.maximize(
        lambda y: jnp.sum(jnp.sqrt(y - y)), jnp.full(2, 0.5), num_steps=5, step_size=0.1,
        patience=patience,
    )  # fmt: skip
    assert np.all(np.isnan(found.y)) and np.isnan(found.values[-1])


@pytest.mark.slow
@pytest.mark.parametrize("unroll", [False, True])
def test_the_result_is_differentiable_through_its_steps(unroll):
    weights = RNG.normal(size=6)

    def loss(target):
        options = dict(num_steps=4, step_size=0.2, momentum=0.5, unroll=unroll)
        normal = gi.maximize(
            lambda y: value(y, target), jnp.full(6, 0.4), normalize=True, **options
        )
        plain = gi.maximize(lambda y: value(y, target), jnp.full(6, 0.4), patience=9, **options)
        return weights @ (normal.y + plain.y)

    gradient = jax.jit(jax.grad(loss))(jnp.asarray(TARGET))
    for i, direction in enumerate(np.eye(6)):
        slope = (loss(TARGET + 1e-6 * direction) - loss(TARGET - 1e-6 * direction)) / 2e-6
        assert float(gradient[i]) == pytest.approx(float(slope), abs=1e-6)
    assert np.any(gradient != 0)


def test_vmap_is_a_loop_and_no_step_is_none():
    starts = jnp.asarray(RNG.random((4, 6)))

    def run(y):
        return gi.maximize(value, y, num_steps=6, step_size=0.4, patience=2)

    together = jax.jit(jax.vmap(run))(starts)
    for i, start in enumerate(starts):
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-12), together, run(start)
        )
    none = gi.maximize(value, starts[0], num_steps=0, step_size=0.1)
    np.testing.assert_array_equal(none.y, starts[0])
    assert none.values.shape == (1,) and none.num_steps == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_steps=-1), "num_steps: wanted an integer >= 0, got -1"),
        (dict(num_steps=2.0), "num_steps: wanted an integer >= 0, got 2.0"),
        (dict(patience=0), "patience: wanted an integer >= 1 or None, got 0"),
        (dict(patience=1.5), "patience: wanted an integer >= 1 or None, got 1.5"),
        (dict(momentum=1.0), r"momentum: wanted in \[0, 1\), got 1.0"),
        (dict(step_size=-1.0), "step_size: wanted > 0 and finite, got -1.0"),
        (dict(step_size=jnp.ones(3)), r"step_size must have shape \[\] or \[2\], got \(3,\)"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        gi.maximize(value, jnp.zeros(6), **dict(num_steps=2, step_size=0.1) | options)


def test_an_ascent_holds_the_arguments_of_maximize():
    def value_fn(y):
        return -jnp.sum((y - 2.0) ** 2)

    settings = dict(num_steps=4, step_size=0.1, normalize=True, momentum=0.3, unroll=True)
    wanted = gi.maximize(value_fn, jnp.zeros(3), **settings)
    ascent = gi.Ascent(**settings)
    found = ascent(value_fn, jnp.zeros(3), projection=gi.box)
    np.testing.assert_array_equal(found.trajectory, wanted.trajectory)
    one = ascent(value_fn, jnp.zeros(3), projection=gi.box, num_steps=1)
    np.testing.assert_array_equal(one.trajectory, wanted.trajectory[:2])
    refused = ("num_steps", -1), ("num_steps", 2.5), ("step_size", 0.0), ("momentum", 1.0)
    refused += (("step_size", None), ("step_size", jnp.ones(4)), ("patience", 0.5))
    for field, value in refused:
        with pytest.raises(ValueError, match=f"{field}: wanted"):
            gi.Ascent(**{field: value})


@pytest.mark.parametrize("num_steps", [0, 1, 2, 3])
def test_an_unrolled_ascent_has_no_loop(num_steps):
    def run(y):
        return gi.maximize(value, y, num_steps=num_steps, step_size=0.1, unroll=True)

    y = jnp.full(6, 0.5)
    assert "while" not in jax.jit(run).lower(y).as_text()
    assert run(y).trajectory.shape == (num_steps + 1, 6)
