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

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Key

from gasn_jax import numerics
from gasn_jax.checks import require
from gasn_jax.energy import gibbs
from gasn_jax.energy import rbm as rbms

# What estimates are reliable by: equal weights at least, standard errors and nats apart at most.
_FEWEST, _ERRORS, _NATS = 10, 4.0, 0.1


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
      standard_error: of ``log_partition``, by the delta method; NaN for a single chain.
      effective_sample_size: ``(sum w)^2 / sum w^2``, 1..C.
      reliable: False if the weights are worth less than ten equal ones, so that
        ``standard_error`` means little: take more chains, or more temperatures. True is no proof:
        chains that all miss the same part of the model have alike weights.
    """

    log_partition: Float[Array, ""]
    standard_error: Float[Array, ""]
    effective_sample_size: Float[Array, ""]
    reliable: Bool[Array, ""]


class Likelihood(NamedTuple):
    """How likely a machine finds held-out configurations, by two estimates of log Z.

    Attributes:
      log_likelihood: mean ``log p(v)`` in nats, too high in expectation; its standard error is that
        of ``forward``.
      reverse_log_likelihood: the same by reverse annealing from the held-out configurations
        themselves; too low in expectation if they were samples of the machine.
      forward, backward: the estimates of log Z.
    """

    log_likelihood: Float[Array, ""]
    reverse_log_likelihood: Float[Array, ""]
    forward: Estimate
    backward: Estimate

    def interval(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """95 % of ``log_likelihood``, by its standard error."""
        reach = 1.96 * self.forward.standard_error
        return self.log_likelihood - reach, self.log_likelihood + reach

    def reverse_interval(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """95 % of ``reverse_log_likelihood``, by the standard error of ``backward``."""
        reach = 1.96 * self.backward.standard_error
        return self.reverse_log_likelihood - reach, self.reverse_log_likelihood + reach

    @property
    def reliable(self) -> Bool[Array, ""]:
        """Whether both estimates are, and agree: within four standard errors and 0.1 nats.

        False: the numbers are worth nothing. True: no fault was found, for a mode of the machine
        that neither the chains find nor the held-out configurations come from shows in neither;
        then ``log_likelihood`` is too high. Another start of the path may find it.
        """
        apart = jnp.abs(self.forward.log_partition - self.backward.log_partition)
        error = jnp.hypot(self.forward.standard_error, self.backward.standard_error)
        agree = apart <= _ERRORS * error + _NATS
        return self.forward.reliable & self.backward.reliable & agree


def sigmoid_schedule(num_steps: int, *, sharpness: float = 4.0) -> Float[Array, "K"]:
    """``num_steps + 1`` betas from 0 to 1 that are dense at both ends, where paths change most.

    A sigmoid between minus and plus ``sharpness`` > 0, stretched to reach 0 and 1; a small one is
    linear.

    Raises:
      ValueError: for ``num_steps < 1`` or ``sharpness`` out of its range.
    """
    require(num_steps >= 1, "num_steps", ">= 1", num_steps)
    require(0 < sharpness < math.inf, "sharpness", "> 0 and finite", sharpness)
    inner = np.tanh(0.5 * sharpness * np.linspace(-1.0, 1.0, num_steps + 1))
    # in float64, and never falling: float32's tanh is not monotone
    betas = np.maximum.accumulate(0.5 * (1 + inner / inner[-1]))
    betas[0], betas[-1] = 0.0, 1.0
    return jnp.asarray(np.minimum(betas, 1.0), float)


def forward(
    key: Key[Array, ""], path: Path, betas: Float[Array, "K"]
) -> tuple[Float[Array, ""], Any]:
    """One chain from ``p_0`` towards the model: its log-weight, and where it ended.

    Args:
      key: of this chain.
      path: the tempered path.
      betas: rising from 0 to 1, K >= 2.

    Returns:
      ``log w``, scalar, with ``E[w] = Z_1 / Z_0``, and x; K - 1 moves. NaN where betas fall, or do
      not run from 0 to 1. A sum of K numbers: in float32, of 10000, it is off by up to 1e-6 of the
      density, which no standard error tells.

    Raises:
      ValueError: at trace time, for fewer than two betas.
    """
    start_key, key = jax.random.split(key)
    return _follow(key, path, path.sample(start_key), betas, ends=(0, 1))


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
      ``log w'``, scalar, with ``E[w'] = Z_0 / Z_1``, and x; K - 1 moves. NaN as :func:`forward`.

    Raises:
      ValueError: at trace time, for fewer than two betas.
    """
    return _follow(key, path, x, jnp.asarray(betas)[::-1], ends=(1, 0))


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
    effective_sample_size = jnp.sum(weights) ** 2 / jnp.sum(weights**2)
    return Estimate(
        log_partition=log_partition + (-log_mean if reverse else log_mean),
        standard_error=jnp.where(count > 1, error, jnp.nan),
        effective_sample_size=effective_sample_size,
        reliable=effective_sample_size >= _FEWEST,
    )


def rbm_path(
    params: rbms.Params, rbm: rbms.RBM, base_visible_bias: Float[Array, "V"] | None = None
) -> Path:
    """From independent visible units to a restricted Boltzmann machine.

    The parameters on the way are mixed: those at 0 have no weights and no hidden bias, and the
    visible bias of the base rates. All hidden units are summed out. Half precision becomes float32.

    Args:
      params, rbm: the machine.
      base_visible_bias: at 0, [V]; None for the machine's own.
    """
    rbms.check(params, rbm)
    bias = params["visible_bias"] if base_visible_bias is None else base_visible_bias
    params, bias = rbms.precise((params, bias))
    base = jax.tree.map(jnp.zeros_like, params) | {"visible_bias": bias}

    def part(beta, x):
        # 0 times a bias of minus infinity is 0.
        finite = beta * jnp.where(x == -jnp.inf, 0.0, x)
        return jnp.where((x == -jnp.inf) & (beta != 0), -jnp.inf, finite)

    def mixed(beta):
        return jax.tree.map(lambda a, b: part(1 - beta, a) + part(beta, b), base, params)

    def kernel(key, v, beta):
        return gibbs.step(key, gibbs.State(v), mixed(beta), rbm)[0].v

    return Path(
        log_density=lambda v, beta: (
            -rbms.free_energy(mixed(beta), rbm, v) * rbms.validity(rbm.visible, v)
        ),
        kernel=kernel,
        sample=lambda key: rbms.draw(key, rbm.visible, bias),
        log_partition=-rbms.hidden_free_energy(base, rbm, jnp.zeros(rbm.num_hidden, bias.dtype))
        + rbm.num_hidden * jnp.log(2.0).astype(bias.dtype),
    )


def rbm_log_likelihood(
    key: Key[Array, ""],
    params: rbms.Params,
    rbm: rbms.RBM,
    v: Float[Array, "M V"],
    *,
    base_visible_bias: Float[Array, "V"] | None = None,
    num_chains: int = 100,
    num_steps: int = 10_000,
    betas: Float[Array, "K"] | None = None,
) -> Likelihood:
    """The mean log-likelihood of held-out configurations, between two estimates.

    Args:
      key: of the chains.
      params, rbm: the machine.
      v: held-out configurations; the reverse chains start at rows spread evenly over them.
      base_visible_bias: see :func:`rbm_path`.
      num_chains: forward; and backward, but not more than M.
      num_steps: temperatures, spread evenly from 0 to 1.
      betas: another schedule in their place, rising from 0 to 1, [K], as
        :func:`sigmoid_schedule`.

    Returns:
      :class:`Likelihood`, in float32 at least; NaN if an entry of v is no state of its unit.
      O((num_chains num_steps + M) V H).

    Raises:
      ValueError: at trace time, for fewer than 1 chain or step, or another shape of v.
    """
    precise = jnp.promote_types(params["weights"].dtype, jnp.float32)
    given = params, v, base_visible_bias
    params, v, base_visible_bias = jax.tree.map(lambda x: jnp.asarray(x, precise), given)
    score = rbms.mean_log_density(params, rbm, v)
    for name, count in (("num_chains", num_chains), ("num_steps", num_steps)):
        if count < 1:
            raise ValueError(f"{name} must be >= 1, got {count}")
    path = rbm_path(params, rbm, base_visible_bias)
    betas = jnp.linspace(0, 1, num_steps + 1) if betas is None else betas
    betas = jnp.asarray(betas, precise)
    forward_key, backward_key = jax.random.split(key)
    rows = np.linspace(0, v.shape[0] - 1, min(num_chains, v.shape[0])).astype(int)
    keys = jax.random.split(forward_key, num_chains)
    there, _ = jax.vmap(lambda key: forward(key, path, betas))(keys)
    keys = jax.random.split(backward_key, len(rows))
    back, _ = jax.vmap(lambda key, start: backward(key, path, start, betas))(keys, v[rows])
    ahead = estimate(there, path.log_partition)
    reverse = estimate(back, path.log_partition, reverse=True)
    return Likelihood(score - ahead.log_partition, score - reverse.log_partition, ahead, reverse)


def base_rates(rbm: rbms.RBM, data: Float[Array, "M V"], *, smoothing: float = 1.0) -> Array:
    """The visible bias [V] of independent units that fit the data, for :func:`rbm_path`.

    Args:
      rbm: whose visible units they are.
      data: visible configurations.
      smoothing: how many made-up configurations of each state are counted in, > 0.

    Returns:
      NaN if an entry of data is no state of its unit.

    Raises:
      ValueError: at trace time, for another shape, or ``smoothing`` out of its range.
    """
    if jnp.ndim(data) != 2 or data.shape[1] != rbm.num_visible or not data.shape[0]:
        wanted = f"[M, {rbm.num_visible}] with M >= 1"
        raise ValueError(f"data must have shape {wanted}, got {jnp.shape(data)}")
    require(smoothing > 0, "smoothing", "> 0", smoothing)
    valid = rbms.validity(rbm.visible, data)
    if rbm.visible == "gaussian":
        return valid * jnp.mean(data, axis=0)
    on = data > 0
    count = jnp.sum(on, axis=0) + smoothing
    logit = jnp.log(count) - jnp.log(data.shape[0] + 2 * smoothing - count)
    return valid * (0.5 * logit if rbm.visible == "spin" else logit)


def _follow(key, path, x, betas, ends):
    """The log-weight of moving along betas [K], whose ends are to be these."""
    density = jax.eval_shape(path.log_density, x, jnp.float32(0))
    betas = jnp.asarray(betas, density.dtype)
    if jnp.ndim(betas) != 1 or betas.shape[0] < 2:
        raise ValueError(f"betas must have shape [K] with K >= 2, got {betas.shape}")

    def step(carry, inputs):
        x, log_weight = carry
        key, before, after = inputs
        log_weight += path.log_density(x, after) - path.log_density(x, before)
        return (path.kernel(key, x, after), log_weight), None

    keys = jax.random.split(key, betas.shape[0] - 1)
    start = x, jnp.zeros_like(betas[0])
    (x, log_weight), _ = lax.scan(step, start, (keys, betas[:-1], betas[1:]))
    rise = jnp.diff(betas) * (ends[1] - ends[0])
    fits = (betas[0] == ends[0]) & (betas[-1] == ends[1]) & jnp.all(rise >= 0)
    return jnp.where(fits, log_weight, jnp.nan), x
