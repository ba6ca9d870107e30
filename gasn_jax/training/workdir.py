"""The directory of one run: its lock, config, versions and metrics.

```
config.json     the config that the run was started with
versions.json   the software and the device that it last ran on
metrics.jsonl   one JSON object a line, `step` first; wall times only in fields named `*_seconds`
checkpoints/    see `checkpoint.py`
```
"""

import contextlib
import dataclasses
import fcntl
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import jax
import numpy as np
from absl import logging

import gasn_jax
from gasn_jax.training.errors import WorkdirError, require

_NAMED = 5  # differences that a line names
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Workdir:
    """A run directory held by this process, from `__enter__` to `__exit__`.

    Attributes:
      path: the directory, absolute.
      checkpoints: the directory for its checkpoints.
    """

    def __init__(self, path: str | os.PathLike[str], config: Any):
        """Takes the directory's name; `__enter__` does the work.

        Args:
          path: the directory, created if it does not exist.
          config: a dataclass: the run's identity. Fields are numbers, strings, None, arrays,
            tuples and dicts of these, functions and classes, which count by their names, and such
            dataclasses, Flax modules too.

        Raises:
          ConfigError: for other fields, which could not be compared.
        """
        self.path = os.path.abspath(path)
        self.checkpoints = os.path.join(self.path, "checkpoints")
        self._config = _fields(config)
        self._held = contextlib.ExitStack()
        self._metrics: IO[str]

    def __enter__(self) -> "Workdir":
        """Returns the workdir, locked, with `config.json` and `versions.json` written.

        Raises:
          WorkdirError: if the directory cannot be written, another process holds it, or it holds
            the run of another config.
        """
        with self._held, self._disk_errors():
            os.makedirs(self.path, exist_ok=True)
            self._held.enter_context(_lock(os.path.join(self.path, ".lock"), self.path))
            self._claim()
            self._note_versions()
            self._held = self._held.pop_all()  # Keeps the lock beyond this block.
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._held.close()

    def open_metrics(self, last_step: int) -> int:
        """Opens `metrics.jsonl` for steps after `last_step`, dropping what lies beyond it.

        These steps are of the versions at hand, which `versions.json` now names.

        Args:
          last_step: the step that the run resumes from; 0 for a fresh run. Lines of later steps
            and a line cut short by a kill are removed, since the run will write them again.

        Returns:
          How many lines are left.

        Raises:
          WorkdirError: if the file cannot be written.
        """
        path = os.path.join(self.path, "metrics.jsonl")
        with self._disk_errors():
            lines = _complete_lines(path)
            kept = [line for line in lines if _metrics_row(line, path)["step"] <= last_step]
            _write_atomically(path, "".join(f"{line}\n" for line in kept))
            self._write_versions()
            self._metrics = self._held.enter_context(open(path, "a", encoding="utf-8"))
            return len(kept)

    def write_metrics(
        self, step: int, metrics: Mapping[str, Any], seconds: Mapping[str, float]
    ) -> None:
        """Returns once the line of `step` is on disk, before any checkpoint of that step.

        Args:
          step: steps taken so far.
          metrics: `{name: scalar or small array}`; arrays become lists.
          seconds: `{name: wall time}`, each name ending in `_seconds`.

        Raises:
          WorkdirError: if the disk is full or not writable.
        """
        row = {"step": step} | {name: to_json(metrics[name]) for name in sorted(metrics)}
        row |= {name: round(value, 6) for name, value in seconds.items()}
        with self._disk_errors():
            self._metrics.write(json.dumps(row) + "\n")
            self._metrics.flush()
            os.fsync(self._metrics.fileno())

    def check_config(self) -> None:
        """Returns nothing if the directory holds a run of this config; neither locks nor writes.

        Raises:
          WorkdirError: if it holds none, or that of another config; names the fields that differ.
        """
        different = _differences(read_config(self.path), self._config)
        if different:
            raise WorkdirError(f"{self.path} holds a run of another config: {different}")

    def _claim(self) -> None:
        path = os.path.join(self.path, "config.json")
        if os.path.exists(path):
            self.check_config()
        else:
            _write_atomically(path, json.dumps(self._config, indent=2) + "\n")

    def _note_versions(self) -> None:
        path = os.path.join(self.path, "versions.json")
        if os.path.exists(path):
            different = _differences(_read_json(path), _versions())
            if different:
                logging.warning("resuming with other versions, bits may differ: %s", different)
        else:
            self._write_versions()

    def _write_versions(self) -> None:
        path = os.path.join(self.path, "versions.json")
        _write_atomically(path, json.dumps(_versions(), indent=2) + "\n")

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WorkdirError(f"cannot use {self.path}: {error.strerror or error}") from error


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the config of the run in a directory, as JSON holds it.

    Args:
      path: the run directory.

    Raises:
      WorkdirError: if there is none, or it cannot be read.
    """
    path = os.path.join(path, "config.json")
    try:
        return _read_json(path)
    except OSError as error:
        raise WorkdirError(f"no run to read: {path}: {error.strerror}") from error


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns the complete lines of a run's `metrics.jsonl`, in order; `[]` when there are none.

    Args:
      path: the run directory.

    Raises:
      WorkdirError: if a line is not a JSON object with a step.
    """
    path = os.path.join(path, "metrics.jsonl")
    return [_metrics_row(line, path) for line in _complete_lines(path)]


def to_json(value: Any) -> Any:
    """Returns a scalar or (nested) list with the shortest digits that give the same bits back.

    Args:
      value: a number or an array of numbers.
    """
    array = np.asarray(value)
    if array.ndim:
        return [to_json(item) for item in array]
    if not jax.dtypes.issubdtype(array.dtype, np.floating):
        return array.item()
    # A float32 printed as the double it equals has 17 digits, 9 of them noise.
    narrow: Any = array if array.dtype.itemsize >= 4 else array.astype(np.float32)
    return float(np.format_float_scientific(narrow[()], unique=True))


def _fields(config: Any) -> dict[str, Any]:
    """What identifies a dataclass, by field."""
    return {
        field.name: _identity(getattr(config, field.name), field.name)
        for field in dataclasses.fields(config)
    }


def _identity(value: Any, name: str) -> Any:
    """What identifies a config's value, as JSON can hold it."""
    if isinstance(value, (np.generic, np.ndarray, jax.Array)):
        value = np.asarray(value).tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_identity(item, name) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _identity(item, name) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"class": type(value).__qualname__} | _fields(value)
    named = hasattr(value, "__qualname__")
    require(named, name, "what another process can compare", value)
    return f"{value.__module__}.{value.__qualname__}"


@contextlib.contextmanager
def _lock(path: str, owner: str) -> Iterator[None]:
    with open(path, "a", encoding="utf-8") as file:
        try:
            # The kernel drops the lock with the process, so a killed run leaves none behind.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkdirError(f"{owner} is in use by another process") from None
        yield


def _complete_lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().split("\n")[:-1]  # What follows the last newline is half a line.
    except FileNotFoundError:
        return []


def _parse(text: str, path: str, usable: Callable[[Any], bool]) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not (isinstance(value, dict) and usable(value)):
        raise WorkdirError(f"{path} is damaged: {text[:80]!r}")
    return value


def _metrics_row(line: str, path: str) -> dict[str, Any]:
    return _parse(line, path, lambda row: isinstance(row.get("step"), int))


def _read_json(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8", errors="replace") as file:
        return _parse(file.read(), path, bool)


def _write_atomically(path: str, text: str) -> None:
    temporary = f"{path}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _differences(there: Any, here: Any) -> str:
    """What differs, as one line that names at most five fields; empty if nothing does."""
    old, new = _flat(there), _flat(here)
    different = [
        f"{name} is {json.dumps(old.get(name, 'absent'))} there, "
        f"{json.dumps(new.get(name, 'absent'))} here"
        for name in sorted(old.keys() | new.keys())
        if not _same(old.get(name, "absent"), new.get(name, "absent"))
    ]
    shown, more = different[:_NAMED], len(different) - _NAMED
    return "; ".join(shown + ([f"and {more} more"] if more > 0 else []))


def _same(old: Any, new: Any) -> bool:
    """Whether they are equal: 1 and 1.0 are, 1 and true are not."""
    equal = old == new and isinstance(old, bool) == isinstance(new, bool)
    return equal or json.dumps(old) == json.dumps(new)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix.rstrip("."): tree}
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.")
    return flat


def _versions() -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    devices = {"device_kind": jax.devices()[0].device_kind, "device_count": jax.device_count()}
    own = {"python": platform.python_version(), "gasn_jax": gasn_jax.__version__}
    return own | versions | devices
