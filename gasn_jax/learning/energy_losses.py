r"""Losses that learn an energy model of structured outputs, of one example each.

A model gives every output y of an input a value v(x, y), higher for better ones (v is minus an
energy). The losses take values that the caller has computed, of the true output y*, of an inference
network's g(x), of the refined y''; which of these get gradients is the caller's choice
(`jax.lax.stop_gradient`). All are to be minimised. The systems of this library learn by the others;
the perceptron's (ALEN, Equations 2, 3 and 5) are for comparisons. Values are scalars, or arrays of
one shape, by variables: ValueError at trace time for arguments of different shapes.

Reference: Pan et al., "Adversarial Localized Energy Network for Structured Prediction", named ALEN
here; Belanger and McCallum, "Structured Prediction Energy Networks" (2016); Gygli, Norouzi and
Angelova, "Deep Value Networks Learn to Evaluate and Iteratively Refine Structured Outputs" (2017);
Tu and Gimpel, "Learning Approximate Inference Networks for Structured Prediction" (2018).
"""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from gasn_jax import checks, numerics

Value = Float[Array, ""]
Output = Float[Array, "..."]


def generalized_perceptron(true_value: Value, offending_value: Value) -> Value:
    """``max_y v(x, y) - v(x, y*)`` (ALEN, Equation 2), with the maximum's value given."""
    checks.same_shapes(true_value=true_value, offending_value=offending_value)
    return offending_value - true_value


def soft_hamming(y: Output, true: Output) -> Value:
    """How many entries of a relaxed binary output are expected to differ from the true one."""
    checks.same_shapes(y=y, true=true)
    return jnp.sum(y * (1 - true) + (1 - y) * true)


def margin_rescaled(true_value: Value, offending_value: Value, cost: Value) -> Value:
    """``max(0, cost + v(x, y~) - v(x, y*))``: the structured hinge (Belanger and McCallum, §3).

    The offending y~ is to maximise ``cost(y, y*) + v(x, y)``.
    """
    checks.same_shapes(true_value=true_value, offending_value=offending_value, cost=cost)
    return jnp.maximum(0.0, cost + offending_value - true_value)


def adversarial_perceptron(
    true_value: Value, network_value: Value, refined_value: Value | None = None
) -> Value:
    """``v(x, g(x)) + v(x, y'') - v(x, y*)`` (ALEN, Equation 5; Equation 3 without y'').

    The energy network descends it, the inference network ascends its first term.
    """
    if refined_value is None:
        refined_value = jnp.zeros_like(network_value)
    checks.same_shapes(
        true_value=true_value, network_value=network_value, refined_value=refined_value
    )
    return network_value + refined_value - true_value


def least_squares(
    true_value: Value,
    network_value: Value,
    refined_value: Value,
    *,
    network_target: Value,
    refined_target: Value,
    true_target: float = 1.0,
    network_weight: float = 1.0,
    refined_weight: float = 1.0,
) -> Value:
    r"""``1/2 (v(x,y*) - a)^2 + \lambda/2 (v(x,g(x)) - b)^2 + \beta/2 (v(x,y'') - c)^2``.

    ALEN, Equation 6, with a = ``true_target``, b and c the oracle's values of g(x) and y''.
    """
    checks.same_shapes(
        true_value=true_value,
        network_value=network_value,
        refined_value=refined_value,
        network_target=network_target,
        refined_target=refined_target,
    )
    return (
        optax.l2_loss(true_value, jnp.full_like(true_value, true_target))
        + network_weight * optax.l2_loss(network_value, network_target)
        + refined_weight * optax.l2_loss(refined_value, refined_target)
    )


def least_squares_generator(network_value: Value, *, target: float = 1.0) -> Value:
    """``1/2 (v(x, g(x)) - d)^2`` (ALEN, Equation 7)."""
    return optax.l2_loss(network_value, jnp.full_like(network_value, target))


def binary_cross_entropy(logits: Output, true: Output) -> Value:
    """The mean over entries of ``-log p(y*)``: L_task of binary outputs (ALEN, Eq. 11)."""
    checks.same_shapes(logits=logits, true=true)
    return jnp.mean(_bernoulli(logits, true))


def categorical_cross_entropy(logits: Float[Array, "... L"], true: Float[Array, "... L"]) -> Value:
    """The mean over variables of ``-log p(y*)``, y* one-hot: L_task of L states (ALEN, Eq. 11).

    A state of logit ``-inf`` is impossible: no loss if it is not the true one, else infinite.
    """
    checks.same_shapes(logits=logits, true=true)
    log_p = numerics.log_softmax(logits)
    impossible = log_p == -jnp.inf
    of_impossible = jnp.where(true == 0, 0.0, jnp.inf + 0 * true)  # NaN stays
    losses = jnp.where(impossible, of_impossible, true * -jnp.where(impossible, 0.0, log_p))
    return jnp.mean(jnp.sum(losses, axis=-1))


def oracle_regression(logit: Value, target: Value) -> Value:
    """Cross-entropy of a value ``sigmoid(logit)`` to the oracle's, in [0, 1] (DVN, §3)."""
    checks.same_shapes(logit=logit, target=target)
    return _bernoulli(logit, target)


def _bernoulli(logits, true):
    """``-log p(true)``; of an infinite logit 0 if it is right, and infinite, without gradient."""
    sure = jnp.isinf(logits)
    unsure = jnp.where(sure, 0.0, logits)
    of_sure = jnp.where(true == (logits > 0), 0.0, jnp.inf + 0 * true)  # NaN stays
    return jnp.where(sure, of_sure, optax.sigmoid_binary_cross_entropy(unsure, true))
