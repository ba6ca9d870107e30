"""Small restricted Boltzmann machines, and all their states in float64 numpy."""

import itertools

import numpy as np

from gasn_jax.energy import rbm as rbms

STATES = {"spin": (-1.0, 1.0), "binary": (0.0, 1.0)}
KINDS = [(v, h) for v in ("spin", "binary", "gaussian") for h in ("spin", "binary")]
DISCRETE = [(v, h) for v, h in KINDS if v != "gaussian"]


def machine(visible, hidden, *, num_visible=4, num_hidden=3, seed=0, scale=0.7):
    rng = np.random.default_rng(seed)
    params = {
        "weights": scale * rng.normal(size=(num_visible, num_hidden)),
        "visible_bias": scale * rng.normal(size=num_visible),
        "hidden_bias": scale * rng.normal(size=num_hidden),
    }
    return params, rbms.RBM(num_visible, num_hidden, visible, hidden)


def configurations(kind, size):
    return np.array(list(itertools.product(STATES[kind], repeat=size)))


def negative_energies(params, v, h):
    """``-E`` of all pairs of rows [A, B], without the quadratic term."""
    linear = (v @ params["visible_bias"])[:, None] + (h @ params["hidden_bias"])[None]
    return v @ params["weights"] @ h.T + linear


def joint(params, rbm):
    """All visible and hidden configurations, and ``-E`` of their pairs."""
    v, h = configurations(rbm.visible, rbm.num_visible), configurations(rbm.hidden, rbm.num_hidden)
    return v, h, negative_energies(params, v, h)


def independent(means, states):
    """Probabilities [A, B] of configurations [B, n] of independent units with means [A, n]."""
    low = states.min()
    on = (np.asarray(means) - low) / (1 - low)
    return np.where(states[None] == 1, on[:, None], 1 - on[:, None]).prod(axis=-1)


def log_sum_exp(x, axis=None):
    top = x.max(axis=axis, keepdims=True)
    result = np.log(np.exp(x - top).sum(axis=axis, keepdims=True)) + top
    return result.squeeze() if axis is None else result.squeeze(axis)
