"""Statistics that compare samples with reference data: binary images, states and strings.

Samples are int states [M, N], one row each, values 0..L-1 for L = ``num_states``; a row may be
padded with -1 beyond its length. Where one-hot rows are compared (means, covariances, MMD), any
other state makes the number NaN. Every function is pure and works under ``jax.jit`` with
``num_states`` static. All are zero in expectation or at best for a perfect model only up to
sampling noise: report beside them the same number between two parts of the real data.
"""

import numbers

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def mean_error(
    samples: Int[Array, "M N"], reference: Int[Array, "K N"], *, num_states: int = 2
) -> Float[Array, ""]:
    """Mean absolute difference of the positions' state frequencies.

    ``1/(N L) sum_{i,a} |f_samples(i, a) - f_reference(i, a)|``, where f(i, a) is the share of rows
    with state a at position i (padding counts as no state). For two states this is the mean
    absolute difference of the pixels' means.

    >>> mean_error(jnp.array([[0, 1], [1, 1]]), jnp.array([[1, 1]])).item()
    0.25

    Args:
      samples: states 0..L-1 or -1, M at least 1.
      reference: states 0..L-1 or -1, K at least 1.
      num_states: L.

    Returns:
      A float in 0..1; O((M + K) N L).

    Raises:
      ValueError: at trace time, if the arrays are not two-dimensional, have different N or no
        rows.
    """
    _check_pair(samples, reference)
    difference = jnp.mean(_one_hot(samples, num_states), 0) - jnp.mean(
        _one_hot(reference, num_states), 0
    )
    return jnp.mean(jnp.abs(difference))


def covariance_error(
    samples: Int[Array, "M N"], reference: Int[Array, "K N"], *, num_states: int = 2
) -> Float[Array, ""]:
    """Mean absolute difference of the entries of the states' covariance matrices.

    The covariance is that of the one-hot rows, [N L, N L], divided by the number of rows:
    ``C[(i, a), (j, b)] = mean 1[x_i = a] 1[x_j = b] - f(i, a) f(j, b)``. The mean is over all
    (N L)^2 entries, the diagonal included. For two states this is the mean absolute difference of
    the pixels' N x N covariance entries.

    >>> covariance_error(jnp.array([[0, 0], [1, 1]]), jnp.array([[0, 1], [1, 0]])).item()
    0.25

    Args:
      samples: states 0..L-1 or -1 (no state), M at least 1.
      reference: states 0..L-1 or -1, K at least 1.
      num_states: L.

    Returns:
      A float in 0..0.5; O((M + K) (N L)^2) time, O((N L)^2) memory.

    Raises:
      ValueError: at trace time, if the arrays are not two-dimensional, have different N or no
        rows.
    """
    _check_pair(samples, reference)
    return jnp.mean(jnp.abs(_covariance(samples, num_states) - _covariance(reference, num_states)))


def hamming_mmd(
    samples: Int[Array, "M N"],
    reference: Int[Array, "K N"],
    *,
    num_states: int = 2,
    bandwidth: float = 0.25,
) -> Float[Array, ""]:
    """Unbiased squared maximum mean discrepancy with an exponential Hamming kernel.

    ``k(x, y) = exp(-hamming(x, y) / (bandwidth N))``, which is positive definite (a product over
    positions), and
    ``MMD^2 = sum_{i != j} k(x_i, x_j) / (M (M-1)) + sum_{i != j} k(y_i, y_j) / (K (K-1))
    - 2 sum_{i, j} k(x_i, y_j) / (M K)``.
    Padding is a state of its own, so strings of different lengths differ in their tails. The
    default bandwidth, a quarter of the positions, is about the median distance of two binary
    images of digits. The estimate of a perfect model has mean zero and so may be negative.

    Args:
      samples: states 0..L-1 or -1, M at least 2.
      reference: states 0..L-1 or -1, K at least 2.
      num_states: L.
      bandwidth: the distance, as a share of N, at which the kernel falls to 1/e; above 0.

    Returns:
      A float in -2..2; O((M + K)^2 N L) time in matrix products, O(M^2 + K^2 + M K) memory.

    Raises:
      ValueError: at trace time, if the arrays are not two-dimensional, have different N or fewer
        than two rows, and for a bandwidth that is a Python number and not above 0.

    Reference: A. Gretton et al., "A Kernel Two-Sample Test", JMLR 13, 2012, Lemma 6 (Eq. 3).
    """
    _check_pair(samples, reference, min_rows=2)
    if isinstance(bandwidth, numbers.Real) and not bandwidth > 0:
        raise ValueError(f"bandwidth must be > 0, got {bandwidth}")
    # state -1 becomes class 0
    x = _one_hot(samples.astype(jnp.int32) + 1, num_states + 1).reshape(samples.shape[0], -1)
    y = _one_hot(reference.astype(jnp.int32) + 1, num_states + 1).reshape(reference.shape[0], -1)
    scale = bandwidth * samples.shape[1]

    def kernel(left: Array, right: Array) -> Array:
        return jnp.exp((left @ right.T - samples.shape[1]) / scale)

    def mean_off_diagonal(rows: Array) -> Array:
        num_rows = rows.shape[0]
        off_diagonal = jnp.where(jnp.eye(num_rows, dtype=bool), 0.0, kernel(rows, rows))
        return jnp.sum(off_diagonal) / (num_rows * (num_rows - 1))

    return mean_off_diagonal(x) + mean_off_diagonal(y) - 2.0 * jnp.mean(kernel(x, y))


def bigram_frequencies(
    states: Int[Array, "M N"], lengths: Int[Array, " M"], num_states: int
) -> Float[Array, "L L"]:
    """Relative frequencies of pairs of consecutive states.

    ``f[a, b] = #{(m, i): i + 1 < length_m, x_mi = a, x_m(i+1) = b} / #{(m, i): i + 1 < length_m}``.

    >>> bigram_frequencies(jnp.array([[0, 1, -1], [0, 1, 1]]), jnp.array([2, 3]), 2).tolist()
    [[0.0, 0.6666666865348816], [0.0, 0.3333333432674408]]

    Args:
      states: 0..L-1 within each row's length; anything beyond it.
      lengths: 0..N.
      num_states: L.

    Returns:
      Frequencies that sum to 1; all zero if no row has two states. O(M N + L^2).

    Raises:
      ValueError: at trace time, if the shapes disagree.
    """
    counts = _bigram_counts(states, lengths, num_states)
    return counts / jnp.maximum(jnp.sum(counts), 1)


def bigram_error(
    samples: Int[Array, "M N"],
    sample_lengths: Int[Array, " M"],
    reference: Int[Array, "K P"],
    reference_lengths: Int[Array, " K"],
    *,
    num_states: int,
) -> Float[Array, ""]:
    """Total variation between the bigram distributions of samples and reference.

    ``1/2 sum_{a,b} |f_samples[a, b] - f_reference[a, b]|`` of ``bigram_frequencies``.

    Args:
      samples: states 0..L-1 within each row's length; anything beyond it.
      sample_lengths: 0..N.
      reference: states 0..L-1 within each row's length; anything beyond it.
      reference_lengths: 0..P.
      num_states: L.

    Returns:
      A float in 0..1 (1/2 if exactly one side has no bigram at all); O(M N + K P + L^2).

    Raises:
      ValueError: at trace time, if the shapes disagree.
    """
    ours = bigram_frequencies(samples, sample_lengths, num_states)
    theirs = bigram_frequencies(reference, reference_lengths, num_states)
    return 0.5 * jnp.sum(jnp.abs(ours - theirs))


def seen_bigrams(
    states: Int[Array, "M N"], lengths: Int[Array, " M"], num_states: int
) -> Bool[Array, "L L"]:
    """Which pairs of consecutive states occur at all, say in a training set.

    Args:
      states: 0..L-1 within each row's length; anything beyond it.
      lengths: 0..N.
      num_states: L.

    Returns:
      True at [a, b] where some row holds a then b; O(M N + L^2).

    Raises:
      ValueError: at trace time, if the shapes disagree.
    """
    return _bigram_counts(states, lengths, num_states) > 0


def unseen_bigram_rate(
    samples: Int[Array, "M N"], lengths: Int[Array, " M"], seen: Bool[Array, "L L"]
) -> Float[Array, ""]:
    """Share of samples that hold at least one bigram that the training set never showed.

    ``1/M #{m: some i + 1 < length_m with not seen[x_mi, x_m(i+1)]}``. A row of one state holds no
    bigram, so no unseen one; nor does a state of -1, as what cannot be drawn has, make one.

    Args:
      samples: states 0..L-1 within each row's length; anything beyond it; M at least 1.
      lengths: 0..N.
      seen: as from ``seen_bigrams`` of the training set.

    Returns:
      A float in 0..1; O(M N).

    Raises:
      ValueError: at trace time, if the shapes disagree, or without samples.
    """
    first, second, present = _bigrams(samples, lengths)
    if not samples.shape[0]:
        raise ValueError("samples must have at least one row")
    return jnp.mean(jnp.any(present & ~seen[first, second], axis=1))


def length_unigram_error(
    samples: Int[Array, "M N"],
    sample_lengths: Int[Array, " M"],
    reference: Int[Array, "K N"],
    reference_lengths: Int[Array, " K"],
    *,
    num_states: int,
) -> Float[Array, ""]:
    """Mean total variation of the state distributions at each position of each length.

    For every length l and position i < l, compares the distribution of x_i among rows of length l:
    ``sum_{l, i} w(l, i) 1/2 sum_a |f_samples(a | l, i) - f_reference(a | l, i)|``. The weight
    w(l, i) is the share of the reference's states that stand there, so every state of the reference
    counts the same; a length that the samples lack altogether costs the full distance 1.

    Args:
      samples: states 0..L-1 within each row's length; anything beyond it.
      sample_lengths: 0..N.
      reference: states 0..L-1 within each row's length; anything beyond it.
      reference_lengths: 0..N.
      num_states: L.

    Returns:
      A float in 0..1; O((M + K) N + N^2 L).

    Raises:
      ValueError: at trace time, if the shapes disagree.
    """
    _check_pair(samples, reference)
    ours = _length_counts(samples, sample_lengths, num_states)
    theirs = _length_counts(reference, reference_lengths, num_states)
    our_totals = jnp.sum(ours, -1, keepdims=True)
    their_totals = jnp.sum(theirs, -1, keepdims=True)
    difference = ours / jnp.maximum(our_totals, 1) - theirs / jnp.maximum(their_totals, 1)
    distance = jnp.where(our_totals[..., 0] > 0, 0.5 * jnp.sum(jnp.abs(difference), -1), 1.0)
    weights = their_totals[..., 0] / jnp.maximum(jnp.sum(their_totals), 1)
    return jnp.sum(weights * distance)


def _one_hot(states: Array, num_states: int) -> Array:
    """Zeros for -1; NaN throughout if there is a state that is none, so that no number is wrong."""
    states = jnp.asarray(states, jnp.int32)  # -1 is no uint8
    known = jnp.all((states >= -1) & (states < num_states))
    return jax.nn.one_hot(states, num_states) * jnp.where(known, 1.0, jnp.nan)


def _covariance(states: Array, num_states: int) -> Array:
    rows = _one_hot(states, num_states).reshape(states.shape[0], -1)
    centred = rows - jnp.mean(rows, 0, keepdims=True)
    # highest: accelerators would round the factors to ten bits or fewer
    return jnp.matmul(centred.T, centred, precision="highest") / rows.shape[0]


def _bigrams(states: Array, lengths: Array) -> tuple[Array, Array, Array]:
    """First and second states of all bigrams, 0 where absent, and the mask of those present."""
    _check_strings(states, lengths)
    inside = jnp.arange(1, states.shape[1])[None, :] < lengths[:, None]
    present = inside & (states[:, :-1] >= 0) & (states[:, 1:] >= 0)
    return (
        jnp.where(present, states[:, :-1], 0),
        jnp.where(present, states[:, 1:], 0),
        present,
    )


def _bigram_counts(states: Array, lengths: Array, num_states: int) -> Array:
    # integers: float32 counts stop growing at 2^24
    first, second, present = _bigrams(states, lengths)
    counts = jnp.zeros((num_states, num_states), jnp.int32)
    return counts.at[first, second].add(present.astype(jnp.int32))


def _length_counts(states: Array, lengths: Array, num_states: int) -> Array:
    """Counts [length, position, state]."""
    _check_strings(states, lengths)
    num_rows, width = states.shape
    positions = jnp.broadcast_to(jnp.arange(width)[None, :], (num_rows, width))
    present = (positions < lengths[:, None]) & (states >= 0)
    counts = jnp.zeros((width + 1, width, num_states), jnp.int32)
    where = (lengths[:, None], positions, jnp.where(present, states, 0))
    return counts.at[where].add(present.astype(jnp.int32))


def _check_pair(samples: Array, reference: Array, min_rows: int = 1) -> None:
    for name, states in (("samples", samples), ("reference", reference)):
        if states.ndim != 2 or states.shape[0] < min_rows:
            raise ValueError(
                f"{name} must have shape [rows, N] with at least {min_rows} row(s), "
                f"got {list(states.shape)}"
            )
    if samples.shape[1] != reference.shape[1]:
        raise ValueError(
            f"samples and reference must have the same N, "
            f"got {samples.shape[1]} and {reference.shape[1]}"
        )


def _check_strings(states: Array, lengths: Array) -> None:
    if states.ndim != 2 or lengths.shape != states.shape[:1]:
        raise ValueError(
            f"states must have shape [M, N] and lengths [M], "
            f"got {list(states.shape)} and {list(lengths.shape)}"
        )
