"""Checkpoints that are either restored bit for bit or refused.

The one place that knows Orbax, which takes flipped bits in array data for data. So a step holds

```
STEP/state/          the leaves, an Orbax checkpoint of {path: array}
STEP/checksums.json  SHA-256 of every leaf and of every file in state/
```

and `Checkpoints.restore` hands out nothing that fails one of them. Leaves vouch for the whole way
from memory and back; files are checked first, since Orbax on damaged files floods stderr. A step
is written under another name and renamed when complete, so a kill leaves it whole or absent.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from gasn_jax import checks
from gasn_jax.training.errors import CheckpointError, WorkdirError

# TensorStore reports a failing disk as a ValueError that holds the system's own words.
_DISK_MESSAGES = (
    "No space left on device",
    "Read-only file system",
    "Permission denied",
    "Disk quota exceeded",
    "File too large",
    "Input/output error",
)
_UNFINISHED = ".unfinished"


class _DamagedError(Exception):
    """A step that must not be restored; the message says why."""


class Checkpoints:
    """The newest checkpoints of one run, in one directory.

    All calls are synchronous: when `save` returns, the step is on disk.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, keep: int = 3, read_only: bool = False
    ):
        """Opens the directory, creating it if needed.

        Args:
          directory: where the steps lie. One process at a time may use it.
          keep: number of newest steps to keep, at least 1. A damaged step is replaced by the one
            before it, so more than 1 is wise.
          read_only: nothing is created or removed, so that another process may use the directory,
            and it may be one that cannot be written. An absent one holds no steps.

        Raises:
          ValueError: if `keep` is below 1.
          WorkdirError: if the directory cannot be created or read.
        """
        checks.require(keep >= 1, "keep", ">= 1", keep)
        self._directory = pathlib.Path(directory).absolute()
        self._keep = keep
        self._read_only = read_only
        # Orbax logs every file that it touches, and the errors that it raises as well.
        logging.get_absl_logger().addFilter(_not_from_orbax)
        self._orbax = ocp.Checkpointer(ocp.StandardCheckpointHandler())
        if read_only:
            return
        with self._disk_errors():
            self._directory.mkdir(parents=True, exist_ok=True)
            for leftover in self._directory.glob(f"*{_UNFINISHED}"):
                shutil.rmtree(leftover)

    @property
    def latest_step(self) -> int | None:
        """The newest saved step, verified or not; `None` when there is none."""
        return max(self._steps(), default=None)

    def save(self, step: int, state: Any) -> None:
        """Returns once `state` is on disk as `step`, the oldest beyond `keep` being removed.

        Args:
          step: steps taken so far; not saved before.
          state: a pytree of arrays without typed PRNG keys.

        Raises:
          ValueError: if a leaf is a typed PRNG key.
          WorkdirError: if the disk is full or not writable.
        """
        arrays = {name: _to_host(name, leaf) for name, leaf in named_leaves(state).items()}
        unfinished = self._directory / f"{step}{_UNFINISHED}"
        with self._disk_errors():
            unfinished.mkdir()
            # Orbax refuses arrays without elements; their fingerprint is all there is to them.
            filled = {name: array for name, array in arrays.items() if array.size}
            if filled:
                self._orbax.save(unfinished / "state", args=ocp.args.StandardSave(filled))
            table = {
                "step": step,
                "leaves": {name: _fingerprint(array) for name, array in arrays.items()},
                "files": _file_digests(unfinished / "state"),
            }
            _write_synced(unfinished / "checksums.json", _with_digest(table))
            unfinished.rename(self._directory / str(step))
            for old in self._steps()[: -self._keep]:
                self._remove(old)

    def restore(self, template: Any) -> tuple[Any, int] | None:
        """Returns `(state, step)` of the newest undamaged step; `None` when nothing was saved.

        Damaged steps newer than the returned one are removed (or left, if read only), with one
        warning that names them and what is wrong with each.

        Args:
          template: a pytree with the structure, shapes and dtypes of the state: arrays or
            `jax.ShapeDtypeStruct`s.

        Returns:
          The state with numpy leaves, bitwise as saved, and its step.

        Raises:
          CheckpointError: if steps exist but all are damaged, or if an undamaged one holds other
            leaves than `template` or cannot be read. Nothing is removed then.
          WorkdirError: if the directory cannot be read, or a damaged step cannot be removed.
        """
        damaged: dict[int, str] = {}
        with self._disk_errors():
            for step in reversed(self._steps()):
                try:
                    state = self._load(step, template)
                except _DamagedError as error:
                    damaged[step] = str(error)
                    continue
                self._give_up(damaged, restored=step)
                return state, step
        if damaged:
            raise CheckpointError(f"no good checkpoint in {self._directory}: {_listed(damaged)}")
        return None

    def _steps(self) -> list[int]:
        if self._read_only and not self._directory.exists():
            return []
        names = (path.name for path in self._directory.iterdir())
        return sorted(int(name) for name in names if name.isascii() and name.isdecimal())

    def _load(self, step: int, template: Any) -> Any:
        path, wanted = self._directory / str(step), named_leaves(template)
        try:
            table = _checked_table((path / "checksums.json").read_bytes())
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise _DamagedError("checksums.json is missing or damaged") from error
        if table.get("step", step) != step:
            raise _DamagedError(f"it is step {table['step']} by its checksums.json")
        files = _file_digests(path / "state")
        for name, digest in table["files"].items():
            if files.get(name) != digest:
                raise _DamagedError(
                    f"file state/{name} is {'damaged' if name in files else 'missing'}"
                )
        leaves = table["leaves"]
        _check_same_leaves(step, leaves, wanted)
        arrays = {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in wanted.items()}
        arrays |= self._read(path / "state", {k: v for k, v in arrays.items() if v.size})
        for name in wanted:
            if _fingerprint(np.asarray(arrays[name])) != leaves[name]:
                raise _DamagedError(f"leaf {name} fails its checksum")
        return jax.tree.unflatten(jax.tree.structure(template), [arrays[k] for k in wanted])

    def _read(self, path: pathlib.Path, blank: dict[str, np.ndarray]) -> dict[str, Any]:
        try:
            return self._orbax.restore(path, args=ocp.args.StandardRestore(blank)) if blank else {}
        except Exception as error:
            # Its files are those that were written: no damage, and nothing to remove.
            reason = str(error).strip().partition("\n")[0][:200]
            raise CheckpointError(f"{path} cannot be read: {reason}") from error

    def _give_up(self, damaged: Mapping[int, str], *, restored: int) -> None:
        for step in damaged if not self._read_only else ():
            self._remove(step)
        if damaged:
            logging.warning(
                ("passed over" if self._read_only else "removed")
                + " damaged checkpoints: %s; resuming from step %d",
                *(_listed(damaged), restored),
            )

    def _remove(self, step: int) -> None:
        # Renamed first: a kill must not leave half a step under a step's name.
        doomed = self._directory / f"{step}{_UNFINISHED}"
        (self._directory / str(step)).rename(doomed)
        shutil.rmtree(doomed)

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise WorkdirError(f"cannot use {self._directory}: {reason}") from error
        except ValueError as error:
            known = [message for message in _DISK_MESSAGES if message in str(error)]
            if not known:
                raise
            raise WorkdirError(f"cannot use {self._directory}: {known[0]}") from error


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns `{path: leaf}` in tree order, with paths such as `params/Dense_0/kernel`.

    Args:
      tree: any pytree. A bare leaf gets the path `state`.

    Raises:
      ValueError: if two leaves share a path.
    """
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "state"
        if name in named:
            raise ValueError(f"two leaves have the path {name}")
        named[name] = leaf
    return named


def _to_host(name: str, leaf: Any) -> np.ndarray:
    if jax.dtypes.issubdtype(jax.dtypes.result_type(leaf), jax.dtypes.prng_key):
        raise ValueError(
            f"state leaf {name}: wanted numbers, got a typed PRNG key; "
            "use the key that each step is given, or jax.random.key_data"
        )
    return np.asarray(jax.device_get(leaf))


def _fingerprint(array: np.ndarray) -> dict[str, Any]:
    shape, dtype = list(array.shape), array.dtype.name
    digest = hashlib.sha256(f"{dtype}{shape}".encode())
    # Through uint8, since bfloat16 has no buffer of its own.
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return {"dtype": dtype, "shape": shape, "sha256": digest.hexdigest()}


def _file_digests(directory: pathlib.Path) -> dict[str, str]:
    digests = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        digests[path.relative_to(directory).as_posix()] = digest
    return digests


def _with_digest(table: Mapping[str, Any]) -> bytes:
    text = json.dumps(table, sort_keys=True).encode()
    return text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n"


def _checked_table(content: bytes) -> dict[str, Any]:
    table = json.loads(content.partition(b"\n")[0])
    if _with_digest(table) != content:
        raise ValueError("the table fails its own checksum")
    return table


def _write_synced(path: pathlib.Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _check_same_leaves(step: int, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    got = {k: f"{v['dtype']}{v['shape']}" for k, v in saved.items()}
    want = {k: f"{np.dtype(v.dtype).name}{list(v.shape)}" for k, v in wanted.items()}
    for name in sorted(got.keys() | want.keys()):
        if got.get(name) != want.get(name):
            raise CheckpointError(
                f"checkpoint step {step} is of another program: leaf {name}: "
                f"wanted {want.get(name, 'none')}, got {got.get(name, 'none')}"
            )


def _listed(damaged: Mapping[int, str]) -> str:
    return "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())


def _not_from_orbax(record: Any) -> bool:
    return not record.pathname.startswith(os.path.dirname(ocp.__file__))
