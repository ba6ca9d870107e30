"""The best sequences of a chain: the recursions under :func:`gasn_jax.structured.chain.top_k`.

One max-product pass backward gives each prefix the score of its best completion. A beam of the k
best prefixes by that measure is then exact, since k better prefixes are k better sequences.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from gasn_jax import numerics
from gasn_jax.structured import markov


def top_k(
    unary: Float[Array, "N L"],
    pairwise: Float[Array, "N-1 L L"],
    k: int,
    length: Int[Array, ""] | None,
) -> tuple[Int[Array, "k N"], Bool[Array, "k"], Bool[Array, ""]]:
    """The k best sequences, best first, which of them are possible, and whether scores are scores.

    They are not with NaN or ``+inf`` among them. O(N L^2 + N k L log k). States of an impossible
    sequence and those in padding are arbitrary. Ties go to the lowest state, first variable first.
    """
    completion = _best_completions(unary, pairwise, length)
    valid = jnp.max(unary[0] + completion[0]) < jnp.inf  # the passes hand on what is no score

    def best(prefix, scores, i):
        """The k best of all [k, L] one-step extensions: their scores, parents and states."""
        longer = (prefix[:, None] + scores).reshape(-1)
        ranked = longer + jnp.tile(completion[i], prefix.shape[0])
        chosen = lax.top_k(ranked, k)[1]
        kept = jnp.where(ranked[chosen] > -jnp.inf, longer[chosen], -jnp.inf)  # no dead ends
        return kept - numerics.finite_max(kept), chosen // unary.shape[1], chosen % unary.shape[1]

    def extend(beam, i):
        prefix, state = beam
        scores = markov.row(pairwise, i)[state]
        longer, parent, state = best(prefix, scores + unary[i + 1][None, :], i + 1)
        if length is not None:
            alive = i + 1 < length
            longer = jnp.where(alive, longer, prefix)
            parent = jnp.where(alive, parent, jnp.arange(k, dtype=jnp.int32))
        return (longer, state), (parent, state)

    # Before the first variable there is one empty prefix; the other k - 1 do not exist.
    empty = jnp.full(k, -jnp.inf, unary.dtype).at[0].set(0.0)
    prefix, _, first = best(empty, jnp.tile(unary[0], (k, 1)), 0)
    beam, (parents, later) = lax.scan(extend, (prefix, first), jnp.arange(unary.shape[0] - 1))

    def follow(rank, pointers):
        parent, state = pointers
        return parent[rank], state[rank]

    # zeros_like: inside shard_map a carry varies over the mesh as what it is made of does.
    ranks = jnp.arange(k, dtype=jnp.int32) + jnp.zeros_like(first, jnp.int32)
    rank, later = lax.scan(follow, ranks, (parents, later), reverse=True)
    states = jnp.concatenate([first[rank][None], later]).T.astype(jnp.int32)
    return states, beam[0] > -jnp.inf, valid


def _best_completions(unary, pairwise, length):
    """The best score of all that follows each state of each variable, [N, L], up to a shift."""

    def backward(message, i):
        inward = markov.row(unary, i + 1) + message
        scores = markov.row(pairwise, i) + inward[None, :]
        message = jnp.max(scores, axis=-1)
        message = message - numerics.finite_max(message)
        if length is not None:
            message = jnp.where(i + 1 < length, message, 0.0)
        return message, message

    last = jnp.zeros_like(unary[0])
    _, earlier = lax.scan(backward, last, jnp.arange(unary.shape[0] - 1), reverse=True)
    return jnp.concatenate([earlier, last[None]])
