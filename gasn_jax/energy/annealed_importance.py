r"""Annealed importance sampling: the partition function of a model at the end of a tempered path.

A path has unnormalised densities :math:`p^*_\beta`, from one at :math:`\beta = 0` that is sampled
and normalised exactly to the model at :math:`\beta = 1`. A chain follows it, moved at each
:math:`\beta_k` by a kernel that leaves :math:`p_{\beta_k}` unchanged, and collects

.. math:: \log w = \sum_k \log p^*_{\beta_k}(x_{k-1}) - \log p^*_{\beta_{k-1}}(x_{k-1}),
          \qquad \mathrm{E}[w] = Z_1 / Z_0

so that in expectation the estimate of log Z is below the truth. Run backwards from exact samples of
the model, the same sum gives E[1/w] = Z_0 / Z_1, and an estimate above it. From held-out data in
their place, it says how far apart the two are on what the model should be good at.

A path is a :class:`Path` of functions; :func:`rbm_path` makes that of a restricted Boltzmann
machine. One chain per call; ``jax.vmap`` over keys gives many.

Reference: Neal, "Annealed Importance Sampling" (2001); Salakhutdinov and Murray, "On the
Quantitative Analysis of Deep Belief Networks" (2008), for the path; Burda, Grosse and
Salakhutdinov, "Accurate and Conservative Estimates of MRF Log-likelihood using Reverse Annealing"
(2015).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from gasn_jax import numerics
from gasn_jax.energy import gibbs
from gasn_jax.energy import rbm as rbms


class Path(NamedTuple):
    """A tempered path.

    Attributes:
      log_density: ``(x, beta) -> log p*_beta(x)``, scalar.
      kernel: ``(key, x, beta) -> x``, leaves ``p_beta`` unchanged.
      sample: ``key -> x``, exactly from ``p_0``.
      log_partition: ``log Z_0``.
    """

    log_density: Callable[[Any, Float[Array, ""]], Float[Array, ""]]
    kernel: Callable[[Key[Array, ""], Any, Float[Array, ""]], Any]
    sample: Callable[[Key[Array, ""]], Any]
    log_partition: Float[Array, ""]


class Estimate(NamedTuple):
    """An estimate of ``log Z_1`` from C chains.

    Attributes:
      log_partition: scalar.
      standard_error: of ``log_partition``, by the delta method; NaN for a single chain, and not to
        be trusted where the effective sample size is small.
      effective_sample_size: ``(sum w)^2 / sum w^2``, 1..C.
    """

    log_partition: Float[Array, ""]
    standard_error: Float[Array, ""]
    effective_sample_size: Float[Array, ""]


def forward(
    key: Key[Array, ""], path: Path, betas: Float[Array, "K"]
) -> tuple[Float[Array, ""], Any]:
    """One chain from ``p_0`` towards the model: its log-weight, and where it ended.

    Args:
      key: of this chain.
      path: the tempered path.
      betas: rising from 0 to 1, K >= 2.

    Returns:
      ``log w``, scalar, with ``E[w] = Z_1 / Z_0``, and x; K - 1 moves.
    """
    start_key, key = jax.random.split(key)
    return _follow(key, path, path.sample(start_key), betas)


def backward(
    key: Key[Array, ""], path: Path, x: Any, betas: Float[Array, "K"]
) -> tuple[Float[Array, ""], Any]:
    """One chain from x, a sample of the model, back to ``p_0``.

    Args:
      key: of this chain.
      path: the tempered path.
      x: the start; exact samples make the estimate rigorous.
      betas: rising from 0 to 1, K >= 2, as for :func:`forward`.

    Returns:
      ``log w'``, scalar, with ``E[w'] = Z_0 / Z_1``, and x; K - 1 moves.
    """
    return _follow(key, path, x, betas[::-1])


def estimate(
    log_weights: Float[Array, "C"], log_partition: Float[Array, ""], *, reverse: bool = False
) -> Estimate:
    """``log Z_1`` from the log-weights of C chains.

    Args:
      log_weights: of :func:`forward`, or with ``reverse`` of :func:`backward`.
      log_partition: ``log Z_0``.
      reverse: which of the two.

    Returns:
      :class:`Estimate`.
    """
    count = log_weights.shape[0]
    total = numerics.logsumexp(log_weights)
    weights = jnp.exp(log_weights - numerics.finite_max(log_weights))
    mean = jnp.mean(weights)
    variance = jnp.sum((weights - mean) ** 2) / jnp.maximum(count - 1, 1)
    error = jnp.sqrt(variance / count) / mean
    log_mean = total - jnp.log(count)
    return Estimate(
        log_partition=log_partition + (-log_mean if reverse else log_mean),
        standard_error=jnp.where(count > 1, error, jnp.nan),
        effective_sample_size=jnp.sum(weights) ** 2 / jnp.sum(weights**2),
    )


def rbm_path(
    params: rbms.Params, rbm: rbms.RBM, base_visible_bias: Float[Array, "V"] | None = None
) -> Path:
    """From independent visible units to a restricted Boltzmann machine.

    The parameters on the way are mixed: those at 0 have no weights and no hidden bias, and the
    visible bias of the base rates. All hidden units are summed out.

    Args:
      params, rbm: the machine.
      base_visible_bias: at 0, [V]; None for the machine's own.
    """
    rbms.check(params, rbm)
    bias = params["visible_bias"] if base_visible_bias is None else base_visible_bias
    base = jax.tree.map(jnp.zeros_like, params) | {"visible_bias": bias}

    def mixed(beta):
        return jax.tree.map(lambda a, b: (1 - beta) * a + beta * b, base, params)

    def kernel(key, v, beta):
        return gibbs.step(key, gibbs.State(v), mixed(beta), rbm)[0].v

    return Path(
        log_density=lambda v, beta: -rbms.free_energy(mixed(beta), rbm, v),
        kernel=kernel,
        sample=lambda key: rbms.draw(key, rbm.visible, bias),
        log_partition=-rbms.hidden_free_energy(base, rbm, jnp.zeros(rbm.num_hidden, bias.dtype))
        + rbm.num_hidden * jnp.log(2.0).astype(bias.dtype),
    )


def base_rates(rbm: rbms.RBM, data: Float[Array, "M V"], *, smoothing: float = 1.0) -> Array:
    """The visible bias [V] of independent units that fit the data, for :func:`rbm_path`.

    Args:
      rbm: whose visible units they are.
      data: visible configurations.
      smoothing: how many made-up configurations of each state are counted in, > 0.
    """
    if rbm.visible == "gaussian":
        return jnp.mean(data, axis=0)
    on = data > 0
    count = jnp.sum(on, axis=0) + smoothing
    logit = jnp.log(count) - jnp.log(data.shape[0] + 2 * smoothing - count)
    return 0.5 * logit if rbm.visible == "spin" else logit


def _follow(key, path, x, betas):
    """The log-weight of moving along betas [K], the first of them to the last."""

    def step(carry, inputs):
        x, log_weight = carry
        key, before, after = inputs
        log_weight += path.log_density(x, after) - path.log_density(x, before)
        return (path.kernel(key, x, after), log_weight), None

    keys = jax.random.split(key, betas.shape[0] - 1)
    start = (x, jnp.zeros((), betas.dtype))
    (x, log_weight), _ = lax.scan(step, start, (keys, betas[:-1], betas[1:]))
    return log_weight, x
