import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gasn_jax.evaluation import samples as stats

M, K, N, L = 5, 4, 4, 3
PAIRED = {
    "mean": functools.partial(stats.mean_error, num_states=L),
    "covariance": functools.partial(stats.covariance_error, num_states=L),
    "mmd": functools.partial(stats.hamming_mmd, num_states=L, bandwidth=0.3),
}
STRINGS = {
    "bigram": functools.partial(stats.bigram_error, num_states=L),
    "length_unigram": functools.partial(stats.length_unigram_error, num_states=L),
}
# one compilation for all cases of hypothesis, and a test under jit at the same time
JITTED = {name: jax.jit(function) for name, function in (PAIRED | STRINGS).items()}
unseen_rate = jax.jit(stats.unseen_bigram_rate)
frequencies = jax.jit(stats.bigram_frequencies, static_argnums=2)


def states(num_rows, least=-1):
    row = st.lists(st.integers(least, L - 1), min_size=N, max_size=N)
    return st.lists(row, min_size=num_rows, max_size=num_rows).map(
        lambda rows: np.array(rows, np.int32)
    )


def strings(num_rows):
    """States and lengths; beyond the length stands anything, as the functions must not look."""
    lengths = st.lists(st.integers(0, N), min_size=num_rows, max_size=num_rows)
    return st.tuples(states(num_rows, 0), lengths.map(lambda x: np.array(x, np.int32)))


def mean_oracle(x, y):
    total = 0.0
    for i, a in itertools.product(range(N), range(L)):
        total += abs(np.mean([row[i] == a for row in x]) - np.mean([row[i] == a for row in y]))
    return total / (N * L)


def covariance_oracle(x, y):
    def covariance(rows, i, a, j, b):
        left = np.array([row[i] == a for row in rows], float)
        right = np.array([row[j] == b for row in rows], float)
        return np.mean(left * right) - np.mean(left) * np.mean(right)

    cells = list(itertools.product(range(N), range(L)))
    pairs = itertools.product(cells, cells)
    return np.mean([abs(covariance(x, *p, *q) - covariance(y, *p, *q)) for p, q in pairs])


def mmd_oracle(x, y):
    def kernel(left, right):
        distance = sum(int(a != b) for a, b in zip(left, right, strict=True))
        return math.exp(-distance / (0.3 * N))

    def within(rows):
        pairs = list(itertools.permutations(range(len(rows)), 2))
        return sum(kernel(rows[i], rows[j]) for i, j in pairs) / len(pairs)

    across = sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    return within(x) + within(y) - 2 * across


ORACLES = {"mean": mean_oracle, "covariance": covariance_oracle, "mmd": mmd_oracle}


def bigrams(rows, lengths):
    return [
        (int(row[i]), int(row[i + 1]))
        for row, length in zip(rows, lengths, strict=True)
        for i in range(length - 1)
    ]


def frequency_oracle(rows, lengths):
    table = np.zeros((L, L))
    for pair in bigrams(rows, lengths):
        table[pair] += 1
    return table / max(table.sum(), 1)


def length_unigram_oracle(x, x_lengths, y, y_lengths):
    def letters(rows, lengths, length, i):
        return [row[i] for row, own in zip(rows, lengths, strict=True) if own == length]

    total, weight = 0.0, 0
    for length in range(1, N + 1):
        for i in range(length):
            ours, theirs = letters(x, x_lengths, length, i), letters(y, y_lengths, length, i)
            distance = 1.0
            if ours and theirs:
                shares = [
                    (ours.count(a) / len(ours), theirs.count(a) / len(theirs)) for a in range(L)
                ]
                distance = sum(abs(p - q) for p, q in shares) / 2
            total += len(theirs) * distance
            weight += len(theirs)
    return total / max(weight, 1)


@pytest.mark.parametrize("name", PAIRED)
@given(x=states(M), y=states(K))
def test_a_paired_statistic_equals_plain_loops(name, x, y):
    assert JITTED[name](x, y) == pytest.approx(ORACLES[name](x, y), abs=2e-6)


@given(x=strings(M), y=strings(K))
def test_bigram_statistics_equal_plain_loops(x, y):
    expected = frequency_oracle(*x)
    np.testing.assert_allclose(frequencies(*x, L), expected, atol=1e-6)
    distance = np.abs(expected - frequency_oracle(*y)).sum() / 2
    assert JITTED["bigram"](*x, *y) == pytest.approx(distance, abs=1e-6)
    seen = stats.seen_bigrams(*y, L)
    known = set(bigrams(*y))
    assert np.array_equal(seen, [[(a, b) in known for b in range(L)] for a in range(L)])
    unseen = [not set(bigrams([row], [n])) <= known for row, n in zip(*x, strict=True)]
    assert unseen_rate(*x, seen) == pytest.approx(np.mean(unseen), abs=1e-6)


@given(x=strings(M), y=strings(K))
def test_length_statistics_equal_plain_loops(x, y):
    expected = length_unigram_oracle(*x, *y)
    assert JITTED["length_unigram"](*x, *y) == pytest.approx(expected, abs=1e-6)


@given(x=strings(M), y=strings(K), filler=st.integers(-1, L - 1))
@settings(max_examples=20)
def test_what_stands_beyond_a_length_does_not_count(x, y, filler):
    rows, lengths = x
    other = np.where(np.arange(N)[None, :] < lengths[:, None], rows, np.int32(filler))
    for name in STRINGS:
        assert JITTED[name](rows, lengths, *y) == JITTED[name](other, lengths, *y)


@given(x=states(M), y=states(K), shuffle=st.permutations(range(M)))
@settings(max_examples=20)
def test_laws_of_paired_statistics(x, y, shuffle):
    for name in PAIRED:
        value = float(JITTED[name](x, y))
        assert value == pytest.approx(float(JITTED[name](x[shuffle], y)), abs=1e-6)
        assert value == pytest.approx(float(JITTED[name](y, x)), abs=1e-6)
    for name in ("mean", "covariance"):
        # the compiler may divide one of the two means by multiplying
        assert JITTED[name](x, x) == pytest.approx(0, abs=1e-7)


def test_for_two_states_the_errors_are_those_of_the_pixels():
    x, y = np.random.RandomState(0).randint(0, 2, (2, 50, 6)).astype(np.int32)
    means = np.mean(np.abs(x.mean(0) - y.mean(0)))
    assert stats.mean_error(x, y) == pytest.approx(means, abs=1e-6)
    covariances = np.mean(np.abs(np.cov(x.T, bias=True) - np.cov(y.T, bias=True)))
    assert stats.covariance_error(x, y) == pytest.approx(covariances, abs=1e-6)


def test_the_mmd_has_mean_zero_for_equal_and_sees_unequal_distributions():
    rng = np.random.RandomState(0)
    rows = rng.binomial(1, 0.3, (200, 2, 20, 8)).astype(np.int32)
    values = jax.vmap(stats.hamming_mmd)(rows[:, 0], rows[:, 1])
    spread = np.std(values) / np.sqrt(values.size)
    assert abs(np.mean(values)) < 4 * spread
    other = rng.binomial(1, 0.6, (200, 20, 8)).astype(np.int32)
    assert np.mean(jax.vmap(stats.hamming_mmd)(rows[:, 0], other)) > 10 * spread


def test_float32_at_size_agrees_with_float64(x64):
    rng = np.random.RandomState(0)
    x, y = rng.binomial(1, 0.3, (300, 64)), rng.binomial(1, 0.31, (300, 64))
    for function in (stats.mean_error, stats.covariance_error, stats.hamming_mmd):
        exact = function(jnp.asarray(x), jnp.asarray(y))
        assert exact.dtype == jnp.float64
        with jax.enable_x64(False):
            single = jax.jit(function)(jnp.asarray(x), jnp.asarray(y))
            assert single.dtype == jnp.float32
        assert abs(float(single) - float(exact)) < 1e-6


def test_no_bigrams_at_all():
    rows, lengths = np.zeros((2, 3), np.int32), np.array([1, 0], np.int32)
    assert not stats.bigram_frequencies(rows, lengths, L).any()
    assert stats.bigram_error(rows, lengths, rows, np.array([3, 3]), num_states=L) == 0.5
    assert stats.unseen_bigram_rate(rows, lengths, jnp.zeros((L, L), bool)) == 0
    with pytest.raises(ValueError, match="samples must have at least one row"):
        stats.unseen_bigram_rate(rows[:0], lengths[:0], jnp.zeros((L, L), bool))


def test_states_that_could_not_be_drawn_make_no_bigram():
    rows, lengths = jnp.array([[-1, -1, -1], [0, 1, -1]]), jnp.array([3, 2])
    counts = stats.bigram_frequencies(rows, lengths, L)
    assert counts[0, 1] == 1 and jnp.sum(counts) == 1
    assert stats.unseen_bigram_rate(rows, lengths, counts > 0) == 0
    with pytest.raises(ValueError, match="bandwidth must be > 0, got 0"):
        stats.hamming_mmd(rows, rows, num_states=L, bandwidth=0)


def test_a_length_that_the_samples_lack_costs_the_full_distance():
    rows = np.zeros((2, 3), np.int32)
    error = stats.length_unigram_error(rows, np.array([1, 1]), rows, np.array([1, 3]), num_states=L)
    assert error == pytest.approx(3 / 4)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda x, n: stats.mean_error(x[0], x), r"samples must have shape .* got \[4\]"),
        (lambda x, n: stats.covariance_error(x, x[:, 1:]), "same N, got 4 and 3"),
        (lambda x, n: stats.mean_error(x, x[:0]), r"reference must have shape .* at least 1"),
        (lambda x, n: stats.hamming_mmd(x[:1], x), r"samples must have shape .* at least 2"),
        (lambda x, n: stats.bigram_frequencies(x, n[1:], L), r"got \[5, 4\] and \[4\]"),
        (lambda x, n: stats.unseen_bigram_rate(x[0], n, n), "states must have shape"),
        (
            lambda x, n: stats.length_unigram_error(x, n, x[:, 1:], n, num_states=L),
            "same N, got 4 and 3",
        ),
    ],
)
def test_wrong_shapes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call(np.zeros((M, N), np.int32), np.ones(M, np.int32))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32])
def test_a_state_that_is_none_makes_numbers_nan(dtype):
    rows = np.random.default_rng(0).integers(0, 2, (6, 4)).astype(dtype)
    wrong = (rows * 100).astype(dtype)
    for statistic in (stats.mean_error, stats.covariance_error, stats.hamming_mmd):
        assert np.isfinite(statistic(jnp.asarray(rows), jnp.asarray(rows[::-1])))
        assert np.isnan(statistic(jnp.asarray(wrong), jnp.asarray(rows)))
        assert np.isnan(statistic(jnp.asarray(rows), jnp.asarray(wrong)))
