"""What is said of a value that cannot be used."""

from typing import Any


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
