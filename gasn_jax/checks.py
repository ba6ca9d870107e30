"""Checks of arguments: one line that names the argument, what is wanted and what was given."""

import os
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int

# The smallest normal number and the largest.
FLOAT32_RANGE = float(jnp.finfo(jnp.float32).tiny), float(jnp.finfo(jnp.float32).max)


def require(ok: Any, name: str, wanted: str, got: Any, error: type[Exception] = ValueError) -> None:
    """Returns nothing if ``ok``; meant for the ``__post_init__`` of a config.

    Args:
      ok: whether the value of the field is usable. Write it so that NaN is not: ``rate > 0``,
        never ``not rate <= 0``.
      name: of the field.
      wanted: the values it may have, such as ``"> 0"``.
      got: the value it has.
      error: what is raised.

    Raises:
      ValueError: or ``error``, if not ``ok``; the message names field, wanted and got.
    """
    if not ok:
        raise error(f"{name}: wanted {wanted}, got {got!r}")


def fits_memory(name: str, num_bytes: int, error: type[Exception] = ValueError) -> None:
    """Returns nothing if so many bytes fit into this machine: more would stall or end the process.

    Raises:
      ValueError: or ``error``, if not; the message has both sizes.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    wanted, got = (f"{number / 2**30:.0f} GiB" for number in (memory, num_bytes))
    if num_bytes > memory:
        raise error(f"{name}: wanted at most the {wanted} of this machine, got {got}")


def same_shapes(**arrays: Any) -> None:
    """Returns nothing if all arrays have one shape; the names of the arguments are theirs.

    Raises:
      ValueError: at trace time, if not; the message has all shapes.
    """
    shapes = {name: jnp.shape(array) for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        got = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"wanted equal shapes, got {got}")


def integers(name: str, value: Any, shape: tuple[int, ...]) -> Int[Array, "..."]:
    """``value`` as an array of 32 bits or more, since limits wrap around in narrower integers.

    Raises:
      ValueError: at trace time, if it has another shape or holds no integers.
    """
    value = jnp.asarray(value)
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {value.shape}")
    if not jnp.issubdtype(value.dtype, jnp.integer):
        raise ValueError(f"{name} must be integers, got {value.dtype}")
    return value.astype(jnp.int32) if value.dtype.itemsize < 4 else value
