r"""Contrastive divergence: estimates of the likelihood's gradient in a Boltzmann machine.

.. math:: -\frac{\partial}{\partial \theta} \frac1M \sum_m \log p(v_m)
          = \underbrace{\mathrm{E}_{v \sim p} \frac{\partial (-F(v))}{\partial \theta}}
            _{\text{negative phase}}
          - \underbrace{\frac1M \sum_m \frac{\partial (-F(v_m))}{\partial \theta}}
            _{\text{positive phase}}

with F the free energy: hidden units stand in both phases by their means. The negative phase is an
average over the ends of Gibbs chains, which start at the data (CD-k) or go on from where they were
(persistent). With chains that reached p(v), the estimate is unbiased.

What is returned is the gradient of the mean NEGATIVE log-likelihood: what an optimizer descends.

Reference: Hinton, "Training Products of Experts by Minimizing Contrastive Divergence" (2002);
Tieleman, "Training Restricted Boltzmann Machines using Approximations to the Likelihood Gradient"
(2008); both named by Arici and Celikyilmaz, "Associative Adversarial Networks", §4.
"""

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gasn_jax.checks import require
from gasn_jax.energy import gibbs
from gasn_jax.energy import rbm as rbms


class Estimate(NamedTuple):
    """A gradient, and what it was made of.

    Attributes:
      gradient: of the mean negative log-likelihood and the penalties, shaped as the parameters.
      positive_phase: mean over data of the derivatives of ``-F``; compiled, neither phase costs
        anything unless it is used.
      negative_phase: the same, over the chains.
      chains: where the chains ended, v [C, V]: the negative samples, and the next start of
        persistent ones.
      visible_mean: the means that these were drawn with, given the hidden units, [C, V].
    """

    gradient: rbms.Params
    positive_phase: rbms.Params
    negative_phase: rbms.Params
    chains: gibbs.State
    visible_mean: Float[Array, "C V"]


def phase(
    params: rbms.Params,
    rbm: rbms.RBM,
    v: Float[Array, "M V"],
    weights: Float[Array, "M"] | None = None,
) -> rbms.Params:
    """The sum over M weighted configurations of ``d(-F) / d params``, by E[h | v]; O(M V H).

    Without weights, their mean.
    """
    weights = jnp.full(v.shape[0], 1 / v.shape[0], v.dtype) if weights is None else weights
    hidden = weights[:, None] * jax.vmap(lambda one: rbms.hidden_mean(params, rbm, one))(v)
    return {
        "weights": v.T @ hidden,
        "visible_bias": weights @ v,
        "hidden_bias": jnp.sum(hidden, axis=0),
    }


def gradient(
    key: Key[Array, ""],
    params: rbms.Params,
    rbm: rbms.RBM,
    data: Float[Array, "M V"],
    *,
    chains: gibbs.State | None = None,
    means: bool = False,
    num_steps: int = 1,
    weight_decay: float = 0.0,
    sparsity: float = 0.0,
    sparsity_target: float = 0.1,
) -> Estimate:
    """CD-k, or persistent contrastive divergence where ``chains`` are given.

    Args:
      key: of the chains.
      params, rbm: the machine.
      data: M visible configurations.
      chains: v [C, V], the ends of the last call; None starts M chains at the data.
      means: whether entries of data and chains may also lie between two states, as the mean of a
        unit does. Without it, 0 and 1 are no data for spins.
      num_steps: k >= 1 Gibbs steps.
      weight_decay: factor of ``1/2 ||W||^2``; it and the next are static.
      sparsity: factor of ``1/2 sum_j (q_j - target)^2``, q_j how often hidden unit j is on.
      sparsity_target: in (0, 1).

    Returns:
      :class:`Estimate`, NaN if an entry of data or chains is no state of its unit.
      O((M + C k) V H).

    Raises:
      ValueError: at trace time, for other shapes than the machine's, integers, ``num_steps < 1``,
        and penalties out of their ranges.
    """
    for name, factor in (("weight_decay", weight_decay), ("sparsity", sparsity)):
        require(factor >= 0, name, ">= 0", factor)
    require(0 < sparsity_target < 1, "sparsity_target", "in (0, 1)", sparsity_target)
    if jnp.ndim(data) != 2 or data.shape[1] != rbm.num_visible or not data.shape[0]:
        raise ValueError(f"data must have shape [M, {rbm.num_visible}], got {jnp.shape(data)}")
    rbms.check(params, rbm, v=data[0])
    start = gibbs.State(data) if chains is None else chains
    if jnp.ndim(start.v) != 2 or start.v.shape[1] != rbm.num_visible or not start.v.shape[0]:
        wanted = f"[C, {rbm.num_visible}] with C >= 1"
        raise ValueError(f"chains must have v of shape {wanted}, got {jnp.shape(start.v)}")
    keys = jax.random.split(key, start.v.shape[0])

    def end(key, state):
        return gibbs.run(key, state, params, rbm, num_steps=num_steps)

    chains, info = jax.vmap(end)(keys, start)
    # One product of both phases with the weights, and one with the hidden units, not two of each.
    both = jnp.concatenate([data, chains.v])
    counts = -data.shape[0], chains.v.shape[0]
    signed = jnp.concatenate([jnp.full(abs(n), 1 / n, both.dtype) for n in counts])
    valid = rbms.validity(rbm.visible, jnp.concatenate([data, start.v]), or_means=means)
    descent = phase(params, rbm, both, valid * signed)

    def penalty(params):
        mean = jnp.mean(jax.vmap(lambda v: rbms.hidden_mean(params, rbm, v))(data), axis=0)
        on = 0.5 * (1 + mean) if rbm.hidden == "spin" else mean
        sparse = 0.5 * sparsity * jnp.sum((on - sparsity_target) ** 2) if sparsity else 0.0
        return sparse + 0.5 * weight_decay * jnp.sum(params["weights"] ** 2)

    if weight_decay or sparsity:
        descent = jax.tree.map(jnp.add, descent, jax.grad(penalty)(params))
    positive, negative = (
        jax.tree.map(lambda x: valid * x, phase(params, rbm, v)) for v in (data, chains.v)
    )
    ended = gibbs.State(valid * chains.v)
    return Estimate(descent, positive, negative, ended, valid * info.visible_mean)


def entropy_gradient(params: rbms.Params, rbm: rbms.RBM, v: Float[Array, "C V"]) -> rbms.Params:
    r"""An estimate of the gradient of ``-H(p)``, the model's entropy over visible units.

    .. math:: -\frac{\partial H}{\partial \theta}
              = \mathrm{Cov}_p\Big(F(v), \frac{\partial F(v)}{\partial \theta}\Big)

    which is half the gradient of the variance of the free energies F of given configurations:
    descending it draws the free energies together, and raises the entropy.

    Args:
      params, rbm: the machine.
      v: C >= 2 samples of it, [C, V].

    Returns:
      Shaped as the parameters; unbiased for exact samples; NaN if an entry is no state of its unit.
      O(C V H).

    Raises:
      ValueError: at trace time, for fewer than 2 samples.

    Reference: the entropy-maximizing regularizer that Arici and Celikyilmaz leave for the future,
    "Associative Adversarial Networks", §7.
    """
    if v.shape[0] < 2:
        raise ValueError(f"v must have at least 2 rows, got {v.shape[0]}")

    def half_variance(params):
        energies = jax.vmap(lambda one: rbms.free_energy(params, rbm, one))(v)
        return 0.5 * jnp.var(energies, ddof=1) * rbms.validity(rbm.visible, v)

    return cast(rbms.Params, jax.grad(half_variance)(params))
