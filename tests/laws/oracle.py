"""Chains by enumeration in float64 numpy: no line is shared with the package that it checks.

A batch of chains of one shape, each with its own length and temperature. All potentials stand in
one flat vector of D = N L + (N-1) L L numbers, and a sequence is the 0/1 vector that says which of
them it uses, so that every expectation is a matrix product over the list of all sequences.
"""

import functools

import numpy as np


def flatten(unary, pairwise):
    """[B, N, L] and [B, N-1, L, L] to [B, D], float64."""
    batch = len(unary)
    parts = [np.asarray(x, np.float64).reshape(batch, -1) for x in (unary, pairwise)]
    return np.concatenate(parts, axis=1)


def split(flat, num_variables, num_states):
    """The inverse of :func:`flatten`, over the last axis."""
    n, s = num_variables, num_states
    lead = flat.shape[:-1]
    unary, pairwise = flat[..., : n * s], flat[..., n * s :]
    return unary.reshape(*lead, n, s), pairwise.reshape(*lead, n - 1, s, s)


@functools.cache
def sequences(length, num_states):
    """All sequences, [S, length], in lexicographic order."""
    grid = np.indices((num_states,) * length)
    return grid.reshape(length, -1).T


@functools.cache
def features(num_variables, num_states, length):
    """Which potentials each sequence of ``length`` uses, [S, D] of 0 and 1."""
    states = sequences(length, num_states)
    rows = np.arange(len(states))
    unary = np.zeros((len(states), num_variables, num_states))
    pairwise = np.zeros((len(states), num_variables - 1, num_states, num_states))
    for i in range(length):
        unary[rows, i, states[:, i]] = 1.0
    for i in range(length - 1):
        pairwise[rows, i, states[:, i], states[:, i + 1]] = 1.0
    return flatten(unary, pairwise)


def total_scores(flat, phi):
    """The score of every sequence, [B, S], ``-inf`` where a used potential is."""
    forbidden = np.isneginf(flat)
    score = np.where(forbidden, 0.0, flat) @ phi.T
    return np.where(forbidden.astype(np.float64) @ phi.T > 0, -np.inf, score)


class Chains:
    """The same questions as ``gasn_jax.structured.chain``, for B chains at once."""

    def __init__(self, unary, pairwise, temperature=1.0, length=None):
        batch, self.num_variables, self.num_states = np.shape(unary)
        self.flat = flatten(unary, pairwise)
        self.temperature = np.broadcast_to(np.asarray(temperature, np.float64), (batch,))
        full = self.num_variables if length is None else length
        self.length = np.broadcast_to(np.asarray(full), (batch,))

    def _each(self, function, *extra):
        """``function(p, log_p, scores, phi, temperature, *extra)`` per length, put together."""
        result = None
        for length in np.unique(self.length):
            rows = np.flatnonzero(self.length == length)
            phi = features(self.num_variables, self.num_states, int(length))
            scores = total_scores(self.flat[rows], phi)
            temperature = self.temperature[rows, None]
            scaled = scores / temperature
            top = scaled.max(axis=1, keepdims=True)
            top = np.where(np.isneginf(top), 0.0, top)
            total = np.exp(scaled - top).sum(axis=1, keepdims=True)
            log_z = np.where(total > 0, np.log(np.where(total > 0, total, 1.0)), -np.inf) + top
            # Infeasible: zero probabilities.
            log_p = np.where(np.isneginf(scaled), -np.inf, scaled - np.where(total > 0, log_z, 0.0))
            part = function(
                np.exp(log_p), log_p, scores, log_z, phi, temperature, *(e[rows] for e in extra)
            )
            if result is None:
                result = np.full((len(self.flat), *part.shape[1:]), np.nan)
            result[rows] = part
        return result

    def log_partition(self):
        return self._each(lambda p, log_p, scores, log_z, phi, t: log_z[:, 0])

    def marginals(self):
        """E[phi], [B, D]."""
        return self._each(lambda p, log_p, scores, log_z, phi, t: p @ phi)

    def covariance(self):
        """d marginals / d potentials = Cov(phi, phi) / temperature, [B, D, D]."""

        def matrix(p, log_p, scores, log_z, phi, t):
            mean = p @ phi
            centred = phi[None] - mean[:, None]
            return np.einsum("bs,bsi,bsj->bij", p, centred, centred, optimize=True) / t[:, :, None]

        return self._each(matrix)

    def marginals_gradient(self, w):
        """d <marginals, w> / d potentials = Cov(phi, <w, phi>) / temperature, [B, D]."""

        def gradient(p, log_p, scores, log_z, phi, t, w):
            return _covariances(p, phi, _centred(p, w @ phi.T)) / t

        return self._each(gradient, w)

    def marginals_second_derivative(self, w, v):
        """The derivative of the gradient of <marginals, w> along v, [B, D]: a third cumulant."""

        def second(p, log_p, scores, log_z, phi, t, w, v):
            return _covariances(p, phi, _centred(p, w @ phi.T) * _centred(p, v @ phi.T)) / t**2

        return self._each(second, w, v)

    def marginals_temperature_derivative(self, w):
        """d <marginals, w> / d temperature, [B]."""

        def derivative(p, log_p, scores, log_z, phi, t, w):
            energy = np.where(p > 0, scores, 0.0)
            return -(p * _centred(p, w @ phi.T) * energy).sum(axis=1) / t[:, 0] ** 2

        return self._each(derivative, w)

    def entropy(self):
        return self._each(lambda p, log_p, *_: -_product(p, log_p).sum(axis=1))

    def entropy_gradient(self):
        """d entropy / d potentials = -Cov(phi, score) / temperature^2, [B, D]."""

        def gradient(p, log_p, scores, log_z, phi, t):
            return -_covariances(p, phi, np.where(p > 0, scores, 0.0)) / t**2

        return self._each(gradient)

    def kl_divergence(self, other):
        """KL(self || other), [B]; ``other`` has the same lengths."""

        def divergence(p, log_p, scores, log_z, phi, t, flat_q):
            return _product(p, _log_ratio(p, log_p, phi, t, flat_q)).sum(axis=1)

        return self._each(divergence, other.flat)

    def kl_gradient(self, other):
        """d KL(self || other) / d potentials of self = Cov(phi, log p - log q) / temperature.

        NaN where the divergence is infinite.
        """

        def gradient(p, log_p, scores, log_z, phi, t, flat_q):
            with np.errstate(invalid="ignore"):
                return _covariances(p, phi, _log_ratio(p, log_p, phi, t, flat_q)) / t

        return self._each(gradient, other.flat)

    def best_scores(self, k):
        """The k best scores at temperature 1, descending, filled up with ``-inf``, [B, k]."""

        def best(p, log_p, scores, log_z, phi, t):
            ordered = -np.sort(-scores, axis=1)[:, :k]
            missing = ((0, 0), (0, k - ordered.shape[1]))
            return np.pad(ordered, missing, constant_values=-np.inf)

        return self._each(best)

    def argmax(self):
        """The first best sequence, [B, N]; -1 beyond the length and where nothing is possible."""

        def first(p, log_p, scores, log_z, phi, t):
            length = int(phi[0].sum() + 1) // 2
            states = sequences(length, self.num_states)[scores.argmax(axis=1)]
            states = np.where(np.isneginf(scores.max(axis=1, keepdims=True)), -1, states)
            missing = ((0, 0), (0, self.num_variables - length))
            return np.pad(states, missing, constant_values=-1)

        return self._each(first).astype(np.int64)


def _centred(p, statistic):
    return statistic - (p * statistic).sum(axis=1, keepdims=True)


def _covariances(p, phi, statistic):
    """Covariance of each feature with a statistic [B, S] of the sequences, [B, D]."""
    return (p * _centred(p, statistic)) @ phi


def _log_ratio(p, log_p, phi, t, flat_q):
    """log p - log q of the sequences [B, S]; 0 where p is."""
    scaled = total_scores(flat_q, phi) / t
    top = scaled.max(axis=1, keepdims=True)
    top = np.where(np.isneginf(top), 0.0, top)
    total = np.exp(scaled - top).sum(axis=1, keepdims=True)
    log_q = scaled - np.log(np.where(total > 0, total, 1.0)) - top
    return np.where(p > 0, log_p, 0.0) - np.where(p > 0, log_q, 0.0)


def _product(p, log_q):
    return np.where(p > 0, p * np.where(p > 0, log_q, 0.0), 0.0)
