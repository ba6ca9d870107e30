"""Marginals, their derivatives, entropy and KL of a chain against enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.structured import chain
from tests.laws.oracle import Chains, flatten, split
from tests.laws.random_chains import random_chains

# 5 shapes x 2000 = 10^4 chains of all lengths up to N.
SHAPES = [(1, 4), (2, 1), (3, 2), (5, 3), (6, 4)]
PER_SHAPE = 2000
TOLERANCE = {np.float32: 5e-6, np.float64: 1e-10}


@jax.jit
@jax.vmap
def everything(unary, pairwise, temperature, length, w, v):
    """Values, first and second derivatives of one chain; w and v weigh the marginals."""

    def smooth(potentials, temperature):
        m = chain.marginals(*potentials, temperature=temperature, length=length)
        return sum(jnp.sum(a * b) for a, b in zip((m.unary, m.pairwise), w, strict=True)), m

    def slope(potentials):
        gradient = jax.grad(smooth, argnums=(0, 1), has_aux=True)(potentials, temperature)
        (gradient, t_gradient), m = gradient
        along = sum(jnp.sum(a * b) for a, b in zip(gradient, v, strict=True))
        return along, (gradient, t_gradient, m)

    def log_z_and_entropy(potentials):
        log_z = chain.log_partition(*potentials, temperature=temperature, length=length)
        return log_z, chain.entropy(*potentials, temperature=temperature, length=length)

    potentials = unary, pairwise
    second, (gradient, t_gradient, m) = jax.grad(slope, has_aux=True)(potentials)
    (log_z, entropy), pull = jax.vjp(log_z_and_entropy, potentials)
    one, zero = jnp.ones_like(log_z), jnp.zeros_like(log_z)
    return {
        "log_partition": (m.log_partition, log_z),
        "marginals": (m.unary, m.pairwise),
        "log_partition_gradient": pull((one, zero))[0],
        "gradient": gradient,
        "temperature_gradient": t_gradient,
        "second": second,
        "entropy": entropy,
        "entropy_gradient": pull((zero, one))[0],
    }


def instances(num_variables, num_states, dtype, seed=0):
    """2000 random chains of random lengths and temperatures, and two weights for each."""
    rng = np.random.default_rng([seed, num_variables, num_states])
    unary, pairwise = random_chains(rng, PER_SHAPE, num_variables, num_states, dtype=dtype)
    temperature = rng.uniform(0.5, 2.0, size=PER_SHAPE).astype(dtype)
    length = rng.integers(1, num_variables + 1, size=PER_SHAPE)
    w, v = (
        tuple(rng.uniform(-1, 1, size=x.shape).astype(dtype) for x in (unary, pairwise))
        for _ in range(2)
    )
    return unary, pairwise, temperature, length, w, v


def solved(num_variables, num_states, dtype):
    """The package's answers, the same with garbage in the padding, and the oracle's."""
    n, s = num_variables, num_states
    unary, pairwise, temperature, length, w, v = instances(n, s, dtype)
    rng = np.random.default_rng(1)
    beyond = np.arange(n) >= length[:, None]
    garbage = np.asarray([np.nan, np.inf, -np.inf, 1e30], dtype)
    dirty_unary = np.where(beyond[:, :, None], rng.choice(garbage, size=unary.shape), unary)
    dirty_pairwise = np.where(
        beyond[:, 1:, None, None], rng.choice(garbage, size=pairwise.shape), pairwise
    )
    clean = everything(unary, pairwise, temperature, length, w, v)
    dirty = everything(dirty_unary, dirty_pairwise, temperature, length, w, v)
    oracle = Chains(unary, pairwise, temperature, length)
    flat_w, flat_v = flatten(*w), flatten(*v)
    mean, log_z = oracle.marginals(), oracle.log_partition()
    wanted = {
        "log_partition": (log_z, log_z),
        "marginals": split(mean, n, s),
        "log_partition_gradient": split(mean / oracle.temperature[:, None], n, s),
        "gradient": split(oracle.marginals_gradient(flat_w), n, s),
        "temperature_gradient": oracle.marginals_temperature_derivative(flat_w),
        "second": split(oracle.marginals_second_derivative(flat_w, flat_v), n, s),
        "entropy": oracle.entropy(),
        "entropy_gradient": split(oracle.entropy_gradient(), n, s),
    }
    return jax.tree.map(np.asarray, clean), jax.tree.map(np.asarray, dirty), wanted


def worst(got, wanted):
    """Largest absolute difference over a pytree; equal infinities differ by 0, a NaN by inf."""

    def difference(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        with np.errstate(invalid="ignore"):
            gap = np.where(a == b, 0.0, np.abs(a - b))
        return np.max(np.where(np.isnan(gap), np.inf, gap), initial=0.0)

    return max(jax.tree.leaves(jax.tree.map(difference, got, wanted)))


every_shape = pytest.mark.parametrize(("num_variables", "num_states"), SHAPES)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@every_dtype
@every_shape
def test_random_chains(dtype, num_variables, num_states):
    """One test per shape and dtype, so that its two compilations happen once under xdist too."""
    with jax.enable_x64(dtype == np.float64):
        got, dirty, wanted = solved(num_variables, num_states, dtype)
    _check_values(got, wanted, TOLERANCE[dtype])
    _check_what_is_forbidden(got, wanted)
    _check_padding(got, dirty)


def _check_values(got, wanted, tolerance):
    errors = {name: worst(got[name], wanted[name]) for name in wanted}
    # A sum of potentials times their gradients: as many digits, but of a larger number.
    errors["temperature_gradient"] /= 10
    assert max(errors.values()) <= tolerance, errors


def _check_what_is_forbidden(got, wanted):
    """Exactly zero in values and derivatives."""
    structured = "marginals", "log_partition_gradient", "gradient", "second", "entropy_gradient"
    for part in range(2):  # unary, pairwise
        impossible = wanted["marginals"][part] == 0
        assert part or impossible.any()
        for name in structured:
            assert (got[name][part][impossible] == 0).all(), name
    infeasible = np.isneginf(wanted["log_partition"][0])
    assert np.isneginf(got["log_partition"][0][infeasible]).all()
    for name in ("entropy", "temperature_gradient"):
        assert (got[name][infeasible] == 0).all(), name


def _check_padding(got, dirty):
    """NaN, infinities and 1e30 beyond the length change no bit of values and derivatives."""
    for name in got:
        for a, b in zip(jax.tree.leaves(got[name]), jax.tree.leaves(dirty[name]), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


def test_padding_is_ignored_in_the_derivative_in_temperature():
    unary, pairwise = np.zeros((2, 2), np.float32), np.full((1, 2, 2), np.nan, np.float32)

    def value(temperature):
        m = chain.marginals(unary, pairwise, temperature=temperature, length=1)
        return m.unary[0, 0]

    assert jax.jit(jax.grad(value))(1.0) == 0


def test_the_random_chains_are_of_all_kinds():
    infeasible, saturated = [], []
    for shape in SHAPES:
        unary, pairwise, temperature, length, *_ = instances(*shape, np.float64)
        oracle = Chains(unary, pairwise, temperature, length)
        infeasible.append(np.isneginf(oracle.log_partition()))
        saturated.append(oracle.entropy() < 0.1)
    infeasible = np.concatenate(infeasible)
    assert infeasible.size == 10_000
    assert 0.05 < infeasible.mean() < 0.5
    assert 0.05 < np.mean(np.concatenate(saturated) & ~infeasible) < 0.5


def test_lengths_may_be_a_numpy_array_from_outside():
    lengths = np.array([1, 2, 3], np.int32)

    def step(total, unary):
        def one(u, n):
            return chain.marginals(u, jnp.zeros((2, 2, 2)), length=n).unary.sum()

        return total + jax.vmap(one)(unary, lengths), None

    sums, _ = jax.jit(lambda u: jax.lax.scan(step, jnp.zeros(3), u))(jnp.ones((1, 3, 3, 2)))
    np.testing.assert_allclose(sums, lengths, rtol=1e-6)


@pytest.mark.parametrize("num_variables", [1, 4])
def test_length_may_be_a_number_an_array_or_none(num_variables):
    unary, pairwise = (x[0] for x in random_chains(np.random.default_rng(1), 1, num_variables, 3))
    length = max(1, num_variables - 1)
    wanted = Chains(unary[None], pairwise[None], 1.0, length).marginals()[0]
    for given in (length, np.int32(length), jnp.asarray(length)):
        m = chain.marginals(unary, pairwise, length=given)
        np.testing.assert_allclose(split(wanted, num_variables, 3)[0], m.unary, atol=5e-6)
    whole = chain.marginals(unary, pairwise)
    np.testing.assert_array_equal(
        whole.unary, chain.marginals(unary, pairwise, length=num_variables).unary
    )


def _call(function, unary, pairwise, **options):
    if function is chain.kl_divergence:
        return function(unary, pairwise, unary, pairwise, **options)
    if function is chain.top_k:
        return function(unary, pairwise, 2, **options)
    if function is chain.sample:
        return function(jax.random.key(0), unary, pairwise, num_samples=2, **options)
    if function in (chain.log_prob, chain.score):
        return function(np.zeros(len(unary), np.int32), unary, pairwise, **options)
    return function(unary, pairwise, **options)


SMOOTH = [
    chain.log_partition, chain.marginals, chain.covariance, chain.sample,
    chain.log_prob, chain.entropy, chain.kl_divergence,
]  # fmt: skip


@pytest.mark.parametrize("function", [*SMOOTH, chain.argmax, chain.top_k, chain.score])
def test_wrong_arguments_raise_with_the_reason(function):
    unary, pairwise = np.zeros((3, 2), np.float32), np.zeros((2, 2, 2), np.float32)
    with pytest.raises(ValueError, match=r"unary must have shape \[N, L\] .* got \(3,\)"):
        _call(function, unary[:, 0], pairwise)
    with pytest.raises(ValueError, match=r"unary must have shape .* N, L >= 1, got \(0, 2\)"):
        _call(function, unary[:0], pairwise)
    with pytest.raises(ValueError, match=r"pairwise must have shape \(2, 2, 2\), got \(3, 2, 2\)"):
        _call(function, unary, np.zeros((3, 2, 2), np.float32))
    for length in (0, 4, -1):
        with pytest.raises(ValueError, match=rf"length must be in 1\.\.3, got {length}"):
            _call(function, unary, pairwise, length=length)
    if function in SMOOTH:
        for temperature in (0, -1.0, np.float32(0), float("nan")):
            with pytest.raises(ValueError, match=f"temperature must be > 0, got {temperature}"):
                _call(function, unary, pairwise, temperature=temperature)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(0, 1), (2, 0)])
@pytest.mark.parametrize("edge", [False, True])
def test_what_is_no_score_is_seen_and_not_taken_for_infeasible(wrong, place, edge):
    rng = np.random.default_rng(0)
    unary, pairwise = rng.normal(size=(4, 2)), rng.normal(size=(3, 2, 2))
    other = unary.copy(), pairwise.copy()
    (pairwise if edge else unary)[place] = wrong  # of an edge: two states
    states, scores = jax.jit(chain.top_k, static_argnums=2)(unary, pairwise, 3)
    assert np.all(states == -1) and np.all(np.isnan(scores))
    samples = chain.sample(jax.random.key(0), unary, pairwise, num_samples=5)
    assert np.all(samples == -1)
    found = chain.marginals(unary, pairwise)
    assert np.isnan(found.log_partition) and np.all(np.isnan(found.unary))
    assert np.isnan(chain.kl_divergence(*other, unary, pairwise))
    assert np.isnan(chain.kl_divergence(unary, pairwise, *other))
    # beyond the length it does not count
    if place[0] == 2 and not edge:
        assert np.all(chain.argmax(unary, pairwise, length=2)[0][:2] >= 0)


def test_more_wrong_arguments():
    unary, pairwise = np.zeros((3, 2), np.float32), np.zeros((2, 2, 2), np.float32)
    for k in (0, -3, 2.5):
        with pytest.raises(ValueError, match=f"k must be an integer >= 1, got {k}"):
            chain.top_k(unary, pairwise, k)
    with pytest.raises(ValueError, match="num_samples must be an integer >= 0, got -1"):
        chain.sample(jax.random.key(0), unary, pairwise, num_samples=-1)
    for length in (2.5, np.nan, np.array([1, 2])):
        with pytest.raises(ValueError, match="length must be an integer scalar, got"):
            chain.marginals(unary, pairwise, length=length)
    with pytest.raises(ValueError, match=r"temperature must be a scalar, got shape \(2,\)"):
        chain.marginals(unary, pairwise, temperature=jnp.array([0.5, 2.0]))
    with pytest.raises(ValueError, match=r"other_unary must have shape \(3, 2\), got \(2, 2\)"):
        chain.kl_divergence(unary, pairwise, unary[:2], pairwise)
    with pytest.raises(ValueError, match=r"other_pairwise must have shape \(2, 2, 2\), got"):
        chain.kl_divergence(unary, pairwise, unary, pairwise[:1])
    for function in (chain.score, chain.log_prob):
        with pytest.raises(ValueError, match=r"states must have shape \(3,\), got \(2,\)"):
            function(np.zeros(2, np.int32), unary, pairwise)
        with pytest.raises(ValueError, match="states must be integers, got float32"):
            function(np.zeros(3, np.float32), unary, pairwise)
        with jax.enable_x64(True):
            assert function([0, 1, 0], unary, pairwise) == function(
                np.array([0, 1, 0]), unary, pairwise
            )


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_lengths_and_states_may_be_of_narrow_integers(dtype):
    """Of which the number of variables, 300, and of states, 260, are out of range."""
    rng = np.random.default_rng(0)
    unary, pairwise = rng.normal(size=(300, 2)), rng.normal(size=(299, 2, 2))
    wanted = chain.marginals(unary, pairwise, length=100)
    for run in (chain.marginals, jax.jit(chain.marginals)):
        for array in (np, jnp):
            got = run(unary, pairwise, length=array.asarray(100, dtype))
            np.testing.assert_allclose(got.unary, wanted.unary, atol=1e-6)
    unary, pairwise = rng.normal(size=(3, 260)), rng.normal(size=(2, 260, 260))
    states = np.array([5, 100, 3])
    for function in (chain.score, chain.log_prob):
        got = function(states.astype(dtype), unary, pairwise)
        np.testing.assert_array_equal(got, function(states, unary, pairwise))
        assert np.isfinite(got)


@pytest.mark.parametrize(
    ("given", "wanted", "tolerance"),
    [
        ("int32", "float32", 1e-6),
        ("bfloat16", "bfloat16", 2e-2),
        ("float16", "float16", 2e-3),
        ("float32", "float32", 1e-6),
    ],
)
def test_dtypes_follow_the_potentials(given, wanted, tolerance):
    rng = np.random.default_rng(2)
    unary, pairwise = rng.integers(-2, 3, size=(3, 2)), rng.integers(-2, 3, size=(2, 2, 2))
    u, w = jnp.asarray(unary, given), jnp.asarray(pairwise, given)

    @jax.jit
    def run(u, w):
        best, score = chain.argmax(u, w)
        smooth = chain.marginals, chain.entropy, chain.covariance
        draws = chain.sample(jax.random.key(0), u, w, num_samples=3)
        return [f(u, w, temperature=0.5) for f in smooth] + [score], (best, draws)

    results, states = run(u, w)
    assert {x.dtype.name for x in jax.tree.leaves(results)} == {wanted}
    assert {x.dtype.name for x in states} == {"int32"}
    oracle = Chains(unary[None], pairwise[None], 0.5)
    m = split(oracle.marginals()[0], 3, 2)
    np.testing.assert_allclose(np.float64(results[0].unary), m[0], atol=tolerance)
    np.testing.assert_allclose(np.float64(results[0].pairwise), m[1], atol=tolerance)


def test_dtypes_follow_the_potentials_and_not_the_temperature():
    u, w = jnp.zeros((3, 2), jnp.bfloat16), jnp.zeros((2, 2, 2), jnp.bfloat16)
    m = jax.eval_shape(lambda t: chain.marginals(u, w, temperature=t), jnp.float32(0.5))
    assert m.unary.dtype == jnp.bfloat16


@pytest.mark.slow
def test_an_infinite_divergence_has_gradient_zero():
    p = jnp.zeros((2, 2)), jnp.zeros((1, 2, 2))
    q = p[0], p[1].at[0, 0, 1].set(-jnp.inf)
    value, slopes = jax.value_and_grad(chain.kl_divergence, argnums=(0, 1, 2, 3))(*p, *q)
    assert value == jnp.inf
    assert all(np.all(np.asarray(slope) == 0) for slope in slopes)


def test_mass_that_underflows_still_counts():
    unary, forbidding = jnp.float32([[0.0, -120.0]]), jnp.float32([[0.0, -jnp.inf]])
    pairwise = jnp.zeros((0, 2, 2))
    assert chain.kl_divergence(unary, pairwise, forbidding, pairwise) == jnp.inf


@pytest.mark.parametrize("length", [0, -3, 9])
def test_a_traced_length_out_of_range_counts_as_the_nearest(length):
    unary, pairwise = jnp.float32([[1.0, 2.0], [0.5, 0.0]]), jnp.zeros((1, 2, 2))
    got = jax.jit(lambda n: chain.marginals(unary, pairwise, length=n))(length)
    wanted = chain.marginals(unary, pairwise, length=int(np.clip(length, 1, 2)))
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


def test_a_temperature_that_is_zero_in_the_dtype_is_refused():
    unary, pairwise = jnp.zeros((2, 2), jnp.float16), jnp.zeros((1, 2, 2), jnp.float16)
    with pytest.raises(ValueError, match="temperature must be > 0, got 1e-08 in float16"):
        chain.marginals(unary, pairwise, temperature=1e-8)
