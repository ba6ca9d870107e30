r"""A chain as a Markov chain: the recursions under :mod:`gasn_jax.structured.chain`.

Every chain :math:`p(x) \propto \exp(\sum_i u_i(x_i) + \sum_i w_i(x_i, x_{i+1}))` is an
inhomogeneous Markov chain. One backward pass in log space gives its transitions
:math:`P_i(y \mid x) = p(x_{i+1} = y \mid x_i = x)`; all that follows is linear algebra with
probabilities:

* marginals: :math:`p_{i+1} = p_i P_i`;
* a linear statistic :math:`t(x) = \sum_i t_i(x_i) + \sum_i t_{i,i+1}(x_i, x_{i+1})` has the
  conditional expectations :math:`b_i(x) = E[\text{terms after } i \mid x_i = x]`, the solution of
  :math:`b_i = c_i + P_i b_{i+1}`, and the martingale increments
  :math:`a_i(x, y) = t_{i,i+1}(x, y) + t_{i+1}(y) + b_{i+1}(y) - b_i(x)`;
* :math:`a_i` is the derivative of :math:`\log P_i` when the potentials move along :math:`t`.
  Pushed forward, :math:`d_{i+1} = d_i P_i + \sum_x p_i(x) P_i(x, \cdot)\, a_i(x, \cdot)`, it
  gives :math:`d_i = \mathrm{Cov}(1[x_i], t)`: Equation 12 of the GASN paper contracted with a
  vector, in two linear passes and O(N L^2).

Reference: London and Schwing, "Generative Adversarial Structured Networks", Claim 1 and §3.2.3. The
paper builds the whole matrix (Algorithm 1); :func:`covariance_matrices` does that, and the product
form here is what gradients use.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from gasn_jax import numerics


class MarkovChain(NamedTuple):
    """A chain's distribution.

    Attributes:
      log_partition: scalar, ``-inf`` when no sequence is possible.
      unary: ``p(x_i)``, [N, L].
      pairwise: ``p(x_i, x_{i+1})``, [N-1, L, L].
      transition: ``p(x_{i+1} | x_i)``, [N-1, L, L]; a row is zero where ``x_i`` has no way on.
      log_initial: ``log p(x_0)``, [L].
      log_transition: ``log p(x_{i+1} | x_i)``, [N-1, L, L].
    """

    log_partition: Float[Array, ""]
    unary: Float[Array, "N L"]
    pairwise: Float[Array, "N-1 L L"]
    transition: Float[Array, "N-1 L L"]
    log_initial: Float[Array, "L"]
    log_transition: Float[Array, "N-1 L L"]


class BackwardPass(NamedTuple):
    """What the log-space recursion from the last variable to the first leaves behind.

    ``exp(inward[i, y] + pairwise[i, x, y] - top[i, x]) / total[i, x]`` is the transition
    ``p(x_{i+1} = y | x_i = x)``. In this order rows sum to one at any size of the scores.

    Attributes:
      first: log potential of all after ``x_0``, as a function of ``x_0``, shifted, [L].
      inward: log potential of ``x_{i+1}`` and all after it, shifted, [N-1, L].
      top: largest ``inward[i] + pairwise[i, x]`` of each row; 0 where all is forbidden, [N-1, L].
      total: sum of the row's exponentials; 0 where ``x_i`` has no way on and in padding, [N-1, L].
      shift: what each step subtracted from its message, [N-1].
    """

    first: Float[Array, "L"]
    inward: Float[Array, "N-1 L"]
    top: Float[Array, "N-1 L"]
    total: Float[Array, "N-1 L"]
    shift: Float[Array, "N-1"]


@jax.custom_jvp
def infer(
    unary: Float[Array, "N L"],
    pairwise: Float[Array, "N-1 L L"],
    length: Int[Array, ""] | None,
) -> MarkovChain:
    """The Markov chain of the given log potentials (temperature 1); positions >= length are empty.

    Costs two scans of O(N L^2). Derivatives of every order follow the covariance form, see the
    module. What a caller does not use of the result, ``jax.jit`` removes.
    """
    first, inward, top, total, shift = backward(unary, pairwise, length)
    per_total = numerics.divide(jnp.ones((), total.dtype), total)  # 0: no way on, or padding
    scores = unary[0] + first
    initial = numerics.softmax(scores)

    def forward(p, inputs):
        # Exponentials once more: arithmetic is cheaper than an [N-1, L, L] array to keep them in.
        i, inward, top, per_total = inputs
        weights = jnp.exp((inward[None, :] + row(pairwise, i)) - top[:, None])
        p = jnp.sum(weights * (p * per_total)[:, None], axis=0)
        return p, p

    steps = jnp.arange(pairwise.shape[0])
    _, later = lax.scan(forward, initial, (steps, inward, top, per_total))
    # Rounding only changes the sums by a little at each step, so it is enough to repair them here.
    later = later * numerics.divide(jnp.ones((), later.dtype), jnp.sum(later, -1, keepdims=True))
    marginals = jnp.concatenate([initial[None], later])

    exponent = (inward[:, None, :] + pairwise) - top[:, :, None]
    log_transition = exponent + numerics.log(per_total)[:, :, None]
    return MarkovChain(
        log_partition=numerics.logsumexp(scores) + jnp.sum(shift),
        unary=marginals,
        pairwise=jnp.exp(exponent) * (marginals[:-1] * per_total)[:, :, None],
        # Ends in exp on purpose: XLA then keeps one array for this, not exp's input too.
        transition=jnp.exp(log_transition),
        log_initial=numerics.log_softmax(scores),
        log_transition=log_transition,
    )


@infer.defjvp
def _infer_jvp(primals, tangents):
    unary, pairwise, length = primals
    t_unary, t_pairwise, _ = tangents
    chain = _with_stored_transitions(infer(unary, pairwise, length))
    # The covariance operator is symmetric. Taking its transpose here gives reverse mode, which
    # transposes once more, the form with fewer passes over the [N-1, L, L] arrays.
    product = functools.partial(covariance_product, chain.unary, chain.transition)
    d_unary, d_pairwise = jax.linear_transpose(product, unary, pairwise)((t_unary, t_pairwise))
    start, steps = _martingale(chain.unary, chain.transition, t_unary, t_pairwise)
    return chain, MarkovChain(
        log_partition=jnp.sum(chain.unary * t_unary) + jnp.sum(chain.pairwise * t_pairwise),
        unary=d_unary,
        pairwise=d_pairwise,
        transition=chain.transition * steps,
        log_initial=start,
        log_transition=steps,
    )


def _with_stored_transitions(chain):
    """The same chain with marginals from its transitions, which a derivative stores anyway."""
    source = jnp.zeros_like(chain.unary).at[0].set(jnp.exp(chain.log_initial))
    marginals = _push_forward(chain.transition, source)
    marginals = numerics.divide(marginals, jnp.sum(marginals, axis=-1, keepdims=True))
    return chain._replace(unary=marginals, pairwise=marginals[:-1, :, None] * chain.transition)


def backward(
    unary: Float[Array, "N L"],
    pairwise: Float[Array, "N-1 L L"],
    length: Int[Array, ""] | None,
) -> BackwardPass:
    """The backward pass of the given log potentials (temperature 1); one scan of O(N L^2).

    Renormalised at each step; has no derivative rule of its own, see :func:`infer`.
    """

    def step(message, i):
        # The matrix is sliced from the closed-over array: under vmap a scanned input would first
        # be copied, transposed.
        inward = row(unary, i + 1) + message
        scores = inward[None, :] + row(pairwise, i)
        top = numerics.finite_max(scores)
        total = jnp.sum(jnp.exp(scores - top[:, None]), axis=-1)
        outward = top + jnp.log(total)
        shift = numerics.finite_max(outward)
        message = outward - shift
        if length is not None:
            alive = i + 1 < length
            message = jnp.where(alive, message, 0.0)
            shift = jnp.where(alive, shift, 0.0)
            total = jnp.where(alive, total, 0.0)
        return message, (inward, top, total, shift)

    # zeros_like, not zeros: inside shard_map the message varies over the mesh as unary does.
    last = jnp.zeros_like(unary[0])
    first, steps = lax.scan(step, last, jnp.arange(pairwise.shape[0]), reverse=True)
    return BackwardPass(first, *steps)


@jax.custom_jvp
def log_prob(
    unary: Float[Array, "N L"],
    pairwise: Float[Array, "N-1 L L"],
    states: Int[Array, "N"],
    length: Int[Array, ""] | None,
) -> Float[Array, ""]:
    """``log p(states)`` by the chain rule, for a sequence of finite score; one scan of O(N L^2).

    A sum of conditional log-probabilities: the difference of the score and the log-partition
    function would lose it where both are large. States are in 0..L-1, in padding too.
    """
    first, inward, top, total, _ = backward(unary, pairwise, length)
    i, here, after = jnp.arange(pairwise.shape[0]), states[:-1], states[1:]
    exponent = (inward[i, after] + pairwise[i, here, after]) - top[i, here]
    total = total[i, here]
    steps = jnp.where(total > 0, exponent - jnp.log(jnp.where(total > 0, total, 1.0)), 0.0)
    return numerics.log_softmax(unary[0] + first)[states[0]] + jnp.sum(steps)


@log_prob.defjvp
def _log_prob_jvp(primals, tangents):
    unary, pairwise, states, length = primals
    t_unary, t_pairwise, _, _ = tangents
    chain = infer(unary, pairwise, length)
    picked = jnp.sum(t_unary[jnp.arange(unary.shape[0]), states]) + jnp.sum(
        t_pairwise[jnp.arange(pairwise.shape[0]), states[:-1], states[1:]]
    )
    mean = jnp.sum(chain.unary * t_unary) + jnp.sum(chain.pairwise * t_pairwise)
    return log_prob(*primals), picked - mean


def covariance_product(
    marginals: Float[Array, "N L"],
    transition: Float[Array, "N-1 L L"],
    t_unary: Float[Array, "N L"],
    t_pairwise: Float[Array, "N-1 L L"],
) -> tuple[Float[Array, "N L"], Float[Array, "N-1 L L"]]:
    """Covariance of each unary and pairwise indicator with the statistic ``<t, indicators>``.

    Args:
      marginals: ``p(x_i)``, [N, L].
      transition: ``p(x_{i+1} | x_i)``, [N-1, L, L].
      t_unary: weights of the unary indicators, [N, L], finite.
      t_pairwise: weights of the pairwise indicators, [N-1, L, L], finite.

    Returns:
      The covariances, [N, L] and [N-1, L, L]; linear and symmetric in ``t``. O(N L^2).

    Reference: GASN paper, Equation 12 (times epsilon), contracted with a vector.
    """
    start, steps = _martingale(marginals, transition, t_unary, t_pairwise)
    joint_steps = marginals[:-1, :, None] * transition * steps
    source = jnp.concatenate([(marginals[0] * start)[None], jnp.sum(joint_steps, axis=1)])
    d_unary = _push_forward(transition, source)
    return d_unary, d_unary[:-1, :, None] * transition + joint_steps


def covariance_matrices(
    marginals: Float[Array, "N L"], transition: Float[Array, "N-1 L L"]
) -> Float[Array, "N N L L"]:
    """``p(x_j = y | x_i = x) - p(x_j = y)`` for all i <= j, [N, N, L, L]; zero where i > j.

    The centred matrix itself is propagated, so the small entries of far-apart variables are not
    the difference of two large ones. O(N^2 L^3).

    Reference: GASN paper, Equations 14 to 17 and Algorithm 1, lines 4-10, divided by ``p_i`` and
    centred.
    """
    num_variables, num_states = marginals.shape
    eye = jnp.eye(num_states, dtype=marginals.dtype)
    centred = jnp.where(marginals[:, :, None] > 0, eye[None] - marginals[:, None, :], 0.0)

    def step(matrices, j):
        matrices = matrices.at[j].set(centred[j])
        # Not yet started rows i > j are zero and stay zero.
        moved = jnp.einsum(
            "ixy,yz->ixz", matrices, row(transition, j), precision=lax.Precision.HIGHEST
        )
        return moved, matrices

    start = jnp.zeros_like(centred)
    last, columns = lax.scan(step, start, jnp.arange(num_variables - 1))
    last = last.at[-1].set(centred[-1])
    return jnp.concatenate([columns, last[None]]).swapaxes(0, 1)


def _martingale(marginals, transition, t_unary, t_pairwise):
    """Martingale increments of ``<t, indicators>``: at the start [L] and at each step [N-1, L, L].

    They are also the derivatives of ``log_initial`` and ``log_transition`` in the direction t.
    """
    gain = t_pairwise + t_unary[1:, None, :]
    expected = jnp.sum(transition * gain, axis=-1)
    # Centred, so that the future's magnitude, and with it rounding, does not grow with N.
    mean = jnp.sum(marginals[:-1] * expected, axis=-1)
    source = jnp.concatenate([expected - mean[:, None], jnp.zeros_like(t_unary[:1])])
    future = _pull_back(transition, source)
    steps = gain - mean[:, None, None] + future[1:, None, :] - future[:-1, :, None]
    start = t_unary[0] + future[0]
    return start - jnp.sum(marginals[0] * start), steps


def _pull_back(transition, source):
    """Solves ``b_i = source_i + P_i b_{i+1}``: conditional expectations, last to first."""
    return _solve(transition, source, _backward_matvec, _backward_solve, _forward_solve)


def _push_forward(transition, source):
    """Solves ``d_{i+1} = source_{i+1} + d_i P_i``: the transposed system, first to last."""
    return _solve(transition, source, _forward_matvec, _forward_solve, _backward_solve)


def _solve(transition, source, matvec, solve, transposed_solve):
    """A block-bidiagonal linear system that JAX differentiates and transposes as such.

    So derivatives in ``transition`` are one outer product instead of a scan that stores its
    steps, and the transpose of one direction is the other direction.
    """
    return lax.custom_linear_solve(
        functools.partial(matvec, transition),
        source,
        solve=lambda _, rhs: solve(transition, rhs),
        transpose_solve=lambda _, rhs: transposed_solve(transition, rhs),
    )


def _backward_matvec(transition, b):
    shifted = jnp.sum(transition * b[1:, None, :], axis=-1)
    return b - jnp.concatenate([shifted, jnp.zeros_like(b[:1])])


def _forward_matvec(transition, d):
    shifted = jnp.sum(transition * d[:-1, :, None], axis=1)
    return d - jnp.concatenate([jnp.zeros_like(d[:1]), shifted])


def _backward_solve(transition, source):
    def step(b, inputs):
        i, c = inputs
        b = c + jnp.sum(row(transition, i) * b[None, :], axis=-1)
        return b, b

    steps = (jnp.arange(transition.shape[0]), source[:-1])
    _, earlier = lax.scan(step, source[-1], steps, reverse=True)
    return jnp.concatenate([earlier, source[-1:]])


def _forward_solve(transition, source):
    def step(d, inputs):
        i, c = inputs
        d = c + jnp.sum(row(transition, i) * d[:, None], axis=0)
        return d, d

    _, later = lax.scan(step, source[0], (jnp.arange(transition.shape[0]), source[1:]))
    return jnp.concatenate([source[:1], later])


def row(array: Float[Array, "M ..."], i: Int[Array, ""]) -> Float[Array, "..."]:
    """``array[i]`` by a dynamic slice; zeros without rows, as a scan of no steps is traced too."""
    if array.shape[0] == 0:
        return jnp.zeros(array.shape[1:], array.dtype)
    return lax.dynamic_index_in_dim(array, i, keepdims=False)
