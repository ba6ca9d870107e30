r"""Restricted Boltzmann machines: energies, conditionals, and what is exact of the small ones.

.. math:: E(v, h) = \tfrac12 \sum_i v_i^2 \,[\text{gaussian}] - v^\top W h - b^\top v - c^\top h,
          \qquad p(v, h) = e^{-E(v, h)} / Z

with visible units v and hidden units h of one kind each:

* ``"spin"``: -1 or +1, the mean given the others is a tanh;
* ``"binary"``: 0 or 1, the mean is a sigmoid;
* ``"gaussian"`` (visible only): real, of variance 1 given the hidden units.

The quadratic term is there for gaussian units only. Of spins it would be the constant V/2, which
cancels in every probability; of binary units it would only move b by 1/2.

Likelihoods and partition functions are computed in float32 at least.

Biases of binary units may be minus infinity: such a unit is always 0. What is no state of its unit,
as 0 is none of a spin, gives NaN and no number; energies and conditionals also take what lies
between two states, as the mean of a unit does.

The kind is static (:class:`RBM`); parameters are a dict of ``weights`` [V, H], ``visible_bias`` [V]
and ``hidden_bias`` [H]. One configuration per call. Natural logarithms throughout.

Reference: Arici and Celikyilmaz, "Associative Adversarial Networks", §4; they write the quadratic
term for every kind of unit.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from gasn_jax import numerics

Params = dict[str, Array]
Visible = Float[Array, "V"]
Hidden = Float[Array, "H"]

VISIBLE_UNITS = ("spin", "binary", "gaussian")
HIDDEN_UNITS = ("spin", "binary")
MAX_ENUMERATED = 25
_LOG_2_PI = math.log(2 * math.pi)


@dataclasses.dataclass(frozen=True)
class RBM:
    """What a machine is made of; static.

    Attributes:
      num_visible: V.
      num_hidden: H.
      visible: ``"spin"``, ``"binary"`` or ``"gaussian"``.
      hidden: ``"spin"`` or ``"binary"``.
    """

    num_visible: int
    num_hidden: int
    visible: str = "spin"
    hidden: str = "spin"

    def __post_init__(self):
        """Raises ValueError naming the field that is out of its range."""
        for name in ("num_visible", "num_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name, kinds in (("visible", VISIBLE_UNITS), ("hidden", HIDDEN_UNITS)):
            if getattr(self, name) not in kinds:
                raise ValueError(f"{name} must be one of {kinds}, got {getattr(self, name)!r}")


def init(key: Key[Array, ""], rbm: RBM, *, scale: float = 0.01) -> Params:
    """Parameters: weights N(0, scale^2), biases zero."""
    shape = (rbm.num_visible, rbm.num_hidden)
    return {
        "weights": scale * jax.random.normal(key, shape),
        "visible_bias": jnp.zeros(rbm.num_visible),
        "hidden_bias": jnp.zeros(rbm.num_hidden),
    }


def energy(params: Params, rbm: RBM, v: Visible, h: Hidden) -> Float[Array, ""]:
    """``E(v, h)``, scalar; O(V H)."""
    check(params, rbm, v=v, h=h)
    linear = _dot(v, params["visible_bias"]) + _dot(h, params["hidden_bias"])
    quadratic = 0.5 * jnp.sum(v**2) if rbm.visible == "gaussian" else 0.0
    known = validity(rbm.visible, v, or_means=True) * validity(rbm.hidden, h, or_means=True)
    return known * (quadratic - v @ params["weights"] @ h - linear)


def free_energy(params: Params, rbm: RBM, v: Visible) -> Float[Array, ""]:
    """``F(v) = -log sum_h exp(-E(v, h))``, scalar; ``log p(v) = -F(v) - log Z``. O(V H)."""
    check(params, rbm, v=v)
    quadratic = 0.5 * jnp.sum(v**2) if rbm.visible == "gaussian" else 0.0
    summed = _log_sum(rbm.hidden, hidden_input(params, v))
    known = validity(rbm.visible, v, or_means=True)
    return known * (quadratic - _dot(v, params["visible_bias"]) - jnp.sum(summed))


def hidden_free_energy(params: Params, rbm: RBM, h: Hidden) -> Float[Array, ""]:
    """``-log sum_v exp(-E(v, h))`` (an integral over gaussian v), scalar; O(V H)."""
    check(params, rbm, h=h)
    summed = _log_sum(rbm.visible, visible_input(params, h))
    known = validity(rbm.hidden, h, or_means=True)
    return known * (-_dot(h, params["hidden_bias"]) - jnp.sum(summed))


def hidden_input(params: Params, v: Visible) -> Hidden:
    """What hidden units receive, ``c + W^T v``, [H]."""
    return params["hidden_bias"] + v @ params["weights"]


def visible_input(params: Params, h: Hidden) -> Visible:
    """What visible units receive, ``b + W h``, [V]."""
    return params["visible_bias"] + params["weights"] @ h


def hidden_mean(params: Params, rbm: RBM, v: Visible) -> Hidden:
    """``E[h | v]``, [H]."""
    check(params, rbm, v=v)
    return validity(rbm.visible, v, or_means=True) * mean(rbm.hidden, hidden_input(params, v))


def visible_mean(params: Params, rbm: RBM, h: Hidden) -> Visible:
    """``E[v | h]``, [V]."""
    check(params, rbm, h=h)
    return validity(rbm.hidden, h, or_means=True) * mean(rbm.visible, visible_input(params, h))


def sample_hidden(key: Key[Array, ""], params: Params, rbm: RBM, v: Visible) -> Hidden:
    """Hidden units given the visible, [H], independent of each other."""
    check(params, rbm, v=v)
    known = validity(rbm.visible, v, or_means=True)
    return draw(key, rbm.hidden, known * hidden_input(params, v))


def sample_visible(key: Key[Array, ""], params: Params, rbm: RBM, h: Hidden) -> Visible:
    """Visible units given the hidden, [V], independent of each other."""
    check(params, rbm, h=h)
    known = validity(rbm.hidden, h, or_means=True)
    return draw(key, rbm.visible, known * visible_input(params, h))


def log_ratio(params: Params, rbm: RBM, v: Visible, other: Visible) -> Float[Array, ""]:
    """``log p(v) / p(other)``, scalar, without the partition function."""
    known = validity(rbm.visible, v) * validity(rbm.visible, other)
    return known * (free_energy(params, rbm, other) - free_energy(params, rbm, v))


def log_partition(params: Params, rbm: RBM, *, chunk_size: int = 2**12) -> Float[Array, ""]:
    """``log Z`` exactly, scalar, by summing over all states of the smaller discrete layer.

    Args:
      params, rbm: the machine.
      chunk_size: how many states at most are taken together, >= 1; bounds the memory.

    Returns:
      Scalar; O(2^n V H) for n units. Its gradient is the negative phase of the likelihood.

    Raises:
      ValueError: at trace time, for more than 25 units or ``chunk_size < 1``.
    """
    check(params, rbm)
    by_hidden = rbm.visible == "gaussian" or rbm.num_hidden <= rbm.num_visible
    size, kind = (rbm.num_hidden, rbm.hidden) if by_hidden else (rbm.num_visible, rbm.visible)
    if size > MAX_ENUMERATED:
        raise ValueError(f"at most {MAX_ENUMERATED} units can be enumerated, got {size}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be >= 1, got {chunk_size}")
    free = hidden_free_energy if by_hidden else free_energy
    params = precise(params)
    dtype = params["weights"].dtype

    def of_state(number):
        bits = (number >> jnp.arange(size, dtype=jnp.int32)) & 1
        states = bits.astype(dtype)
        return -free(params, rbm, 2 * states - 1 if kind == "spin" else states)

    # A power of 2, so that the chunks end where the states do.
    chunk = 1 << (min(chunk_size, 2**size).bit_length() - 1)
    starts = jnp.arange(0, 2**size, chunk, dtype=jnp.int32)

    # Its gradient keeps a number a chunk, and takes one chunk at a time, too.
    @jax.checkpoint
    def of_chunk(start):
        values = jax.vmap(of_state)(start + jnp.arange(chunk, dtype=jnp.int32))
        return numerics.logsumexp(values)

    # All chunks at once: a running sum would round thousands of times, at the size of log Z.
    return numerics.logsumexp(lax.map(of_chunk, starts))


def log_prob(params: Params, rbm: RBM, v: Visible) -> Float[Array, ""]:
    """``log p(v)``, scalar, exactly; errors as :func:`log_partition`."""
    check(params, rbm, v=v)
    params, v = precise((params, v))
    return -free_energy(params, rbm, v) * validity(rbm.visible, v) - log_partition(params, rbm)


def log_likelihood(params: Params, rbm: RBM, v: Float[Array, "M V"]) -> Float[Array, ""]:
    """The mean of :func:`log_prob` over M configurations, scalar.

    NaN, with gradient NaN, if an entry is no state of its unit.

    Raises:
      ValueError: at trace time, for another shape or dtype than [M, V] floating with M >= 1, and as
        :func:`log_partition`.
    """
    return mean_log_density(params, rbm, v) - log_partition(params, rbm)


def mean_log_density(params: Params, rbm: RBM, v: Float[Array, "M V"]) -> Float[Array, ""]:
    """The mean ``-F(v)``, scalar: :func:`log_likelihood` without the partition function."""
    if jnp.ndim(v) != 2 or not v.shape[0]:
        wanted = f"[M, {rbm.num_visible}] with M >= 1"
        raise ValueError(f"v must have shape {wanted}, got {jnp.shape(v)}")
    check(params, rbm, v=v[0])
    params, v = precise((params, v))
    energies = jax.vmap(lambda one: free_energy(params, rbm, one))(v)
    return -jnp.mean(energies) * validity(rbm.visible, v)


def validity(kind: str, x: Float[Array, "..."], *, or_means: bool = False) -> Float[Array, ""]:
    """1 if every entry is a state of units of a kind, or with ``or_means`` between two; else NaN.

    A factor of results, so that no wrong number leaves in silence.
    """
    low = -1 if kind == "spin" else 0
    if kind == "gaussian":
        valid = jnp.isfinite(x)
    elif or_means:
        valid = (x >= low) & (x <= 1)
    else:
        valid = (x == low) | (x == 1)
    return jnp.where(jnp.all(valid), 1.0, jnp.nan).astype(jnp.result_type(x, float))


def mean(kind: str, received: Float[Array, "..."]) -> Float[Array, "..."]:
    """The mean of units of a kind that receive so much."""
    if kind == "spin":
        return jnp.tanh(received)
    return jax.nn.sigmoid(received) if kind == "binary" else received


def draw(key: Key[Array, ""], kind: str, received: Float[Array, "..."]) -> Float[Array, "..."]:
    """Independent units of a kind that receive so much, of its dtype; NaN for NaN."""
    if kind == "gaussian":
        return received + jax.random.normal(key, received.shape, received.dtype)
    # In float32, states less likely than 1e-7 come up as often; halves would stop at 1e-2.
    wide = precise(received)
    likely = jax.nn.sigmoid(2 * wide if kind == "spin" else wide)
    on = jax.random.uniform(key, received.shape, wide.dtype) < likely
    drawn = jnp.where(on, 1.0, -1.0 if kind == "spin" else 0.0)
    return jnp.where(jnp.isnan(likely), jnp.nan, drawn).astype(received.dtype)


def check(params: Params, rbm: RBM, *, v: Array | None = None, h: Array | None = None) -> None:
    """Raises ``ValueError`` naming what is not floating or not of the shape of the machine."""
    num_visible, num_hidden = rbm.num_visible, rbm.num_hidden
    wanted = {
        "weights": (num_visible, num_hidden),
        "visible_bias": (num_visible,),
        "hidden_bias": (num_hidden,),
    }
    arrays = {name: params[name] for name in wanted}
    for name, value, size in (("v", v, num_visible), ("h", h, num_hidden)):
        if value is not None:
            arrays[name], wanted[name] = value, (size,)
    for name, array in arrays.items():
        if not jnp.issubdtype(jnp.result_type(array), jnp.floating):
            raise ValueError(f"{name} must be floating, got {jnp.result_type(array)}")
        if jnp.shape(array) != wanted[name]:
            raise ValueError(f"{name} must have shape {wanted[name]}, got {jnp.shape(array)}")


def precise(tree):
    """A pytree of arrays in float32 at least: halves are too coarse for sums over many units."""

    def promoted(x):
        return jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))

    return jax.tree.map(promoted, tree)


def _dot(states, bias):
    """Their product, in which a unit at 0 has no part of a bias of minus infinity."""
    forbidden = bias == -jnp.inf
    allowed = jnp.sum(states * jnp.where(forbidden, 0.0, bias))
    return allowed - jnp.sum(jnp.where(forbidden & (states != 0), jnp.inf, jnp.zeros_like(bias)))


def _log_sum(kind, received):
    """``log sum_x exp(x received)`` over the states x of a unit."""
    if kind == "spin":
        return jnp.logaddexp(received, -received)
    if kind == "binary":
        return jax.nn.softplus(received)
    return 0.5 * received**2 + 0.5 * _LOG_2_PI
