"""The loop that trains any pure step, killed and resumed bit for bit.

A system is three pure functions and an array tree:

    init_fn(key) -> state
    batch_fn(data, key) -> batch
    step_fn(state, batch, key) -> (state, metrics)

Step `k` runs from 1 to `num_steps` and draws everything from `fold_in(run_key, k)`, key 0 being
the initialisation's. The state after step `k` therefore depends on the config and the data alone,
and a resumed run needs no saved generator.
"""

import dataclasses
import itertools
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from absl import logging
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gasn_jax.checks import fits_memory
from gasn_jax.training.checkpoint import Checkpoints, named_leaves
from gasn_jax.training.errors import (
    CheckpointError,
    ConfigError,
    Interrupted,
    NonFiniteError,
    require,
)
from gasn_jax.training.workdir import Workdir

State = TypeVar("State")
Batch = TypeVar("Batch")
Data = TypeVar("Data")

# A call is one uninterruptible piece of work: longer ones delay signals and the progress bar, and
# save next to nothing.
_CALL_SECONDS = 0.5
_LOG_LINE_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """The fields that every experiment's config has; inherit them or repeat them."""

    # Seed of every random number of the run.
    seed: int = 0
    # Training steps of the whole run.
    num_steps: int = 1000
    # Steps between two lines of metrics.jsonl; the last step always gets one.
    log_every: int = 100
    # Steps between two checkpoints; the last step always gets one.
    checkpoint_every: int = 1000

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, "seed", "0 to 2**32 - 1", self.seed)
        require(0 <= self.num_steps < 2**31, "num_steps", "0 to 2**31 - 1", self.num_steps)
        require(self.log_every >= 1, "log_every", ">= 1", self.log_every)
        require(self.checkpoint_every >= 1, "checkpoint_every", ">= 1", self.checkpoint_every)


class _Problem(NamedTuple, Generic[State, Batch, Data]):
    """The functions and data that `train` was given."""

    init_fn: Callable[[jax.Array], State]
    step_fn: Callable[[State, Batch, jax.Array], tuple[State, dict[str, Any]]]
    batch_fn: Callable[[Data, jax.Array], Batch]
    data: Data


def train(
    config: Any,
    workdir: str | os.PathLike[str],
    *,
    init_fn: Callable[[jax.Array], State],
    step_fn: Callable[[State, Batch, jax.Array], tuple[State, dict[str, Any]]],
    batch_fn: Callable[[Data, jax.Array], Batch],
    data: Data,
    steps_per_call: int = 100,
) -> State:
    """Returns the state after `config.num_steps` steps, training whatever part is still missing.

    Resumes from the newest good checkpoint in `workdir`; a finished run is restored and returned
    at once. The three functions are pure and are compiled here; with several devices, the batch
    is split over them along its leading axis and the state is on each.

    Args:
      config: a dataclass with the fields of `LoopConfig`; all its fields identify the run.
      workdir: the run directory, created if it does not exist; see `workdir.py` for its files.
      init_fn: `init_fn(key) -> state`, a pytree of arrays without typed PRNG keys.
      step_fn: `step_fn(state, batch, key) -> (state, metrics)`; the state keeps its shapes and
        dtypes, metrics is a (nested) dict of finite scalars or small arrays.
      batch_fn: `batch_fn(data, key) -> batch`, a pytree of arrays with one leading batch axis.
      data: a pytree of arrays, handed to the compiled program as an argument.
      steps_per_call: the most steps that one compiled call takes. The result is the same for any
        number from 2 up. 1 compiles a step without a loop around it, which is what a convolution
        trained on the CPU needs (its gradient is many times slower inside a compiled loop); see
        :func:`steps_per_call`.

    Returns:
      The final state, arrays on the device.

    Raises:
      ConfigError: if `steps_per_call` is below 1, or the state is larger than the memory.
      ValueError: if there are several processes, the step changes the state's shapes or dtypes, or
        a metric's name is taken.
      NonFiniteError: if a metric or a float leaf of the state is NaN or Inf after a step. The
        checkpoints stay those of earlier, finite steps.
      Interrupted: after SIGTERM (exit code 143) or SIGINT (130): the running call was finished
        and its last step saved. Signals are left alone outside the main thread.
      WorkdirError: if the workdir is not writable, in use, or holds a run of another config.
      CheckpointError: if there are checkpoints but no good one.
    """
    if jax.process_count() > 1:
        raise ValueError(f"train: wanted one process, got {jax.process_count()}")
    require(steps_per_call >= 1, "steps_per_call", ">= 1", steps_per_call)
    problem = _Problem(init_fn, step_fn, batch_fn, data)
    with Workdir(workdir, config) as run, _Signals() as signals:
        return _Run(config, problem, run, Checkpoints(run.checkpoints)).finish(
            steps_per_call, signals
        )


def restore(
    config: Any, workdir: str | os.PathLike[str], *, init_fn: Callable[[jax.Array], State]
) -> State:
    """Returns the state of the newest good checkpoint of a run, in which nothing is written.

    The run may be of a folder that cannot be written, or still be trained by another process.

    Args:
      config: of the run.
      workdir: the run directory.
      init_fn: as in :func:`train`; only its result's shapes are used.

    Raises:
      WorkdirError: if the workdir holds no run or one of another config, or cannot be read.
      CheckpointError: if there is no good checkpoint.
    """
    run = Workdir(workdir, config)
    run.check_config()
    template = jax.eval_shape(init_fn, jax.random.key(config.seed))
    restored = Checkpoints(run.checkpoints, read_only=True).restore(template)
    if restored is None:
        raise CheckpointError(f"no checkpoint in {run.checkpoints}")
    return jax.device_put(restored[0])


def steps_per_call(*, convolutions: bool) -> int:
    """How many steps one compiled call should take: 1 for convolutions on the CPU, else 100."""
    return 1 if convolutions and jax.default_backend() == "cpu" else 100


class _Run(Generic[State, Batch, Data]):
    """One run between its first unfinished step and its last."""

    def __init__(
        self,
        config: Any,
        problem: _Problem[State, Batch, Data],
        workdir: Workdir,
        checkpoints: Checkpoints,
    ):
        self._config, self._problem = config, problem
        self._workdir, self._checkpoints = workdir, checkpoints
        self._mesh = _data_mesh()
        self._key = jax.random.key(config.seed)
        self._state, self._step = self._first_state()

    def _first_state(self) -> tuple[State, int]:
        init_key = jax.random.fold_in(self._key, 0)
        template = jax.eval_shape(self._problem.init_fn, init_key)
        _check_memory(template)
        restored = self._checkpoints.restore(template)
        state, step = restored or (jax.jit(self._problem.init_fn)(init_key), 0)
        # Both ways through host memory: a fresh state gets the same strong dtypes as a restored
        # one, and leaves that shared a buffer get one each, as donation asks.
        return self._to_devices(jax.device_get(state)), step

    def _to_devices(self, tree: Any) -> Any:
        sharding = self._mesh and NamedSharding(self._mesh, PartitionSpec())
        return jax.device_put(tree, sharding, may_alias=False)

    def finish(self, steps_per_call: int, signals: "_Signals") -> State:
        num_steps = self._config.num_steps
        every = self._config.log_every
        written = self._step // every + (self._step == num_steps and self._step % every > 0)
        missing = written - self._workdir.open_metrics(self._step)
        if missing > 0:
            logging.warning("%s: metrics.jsonl has lost %d lines", self._workdir.path, missing)
        if self._step == num_steps and self._checkpoints.latest_step == num_steps:
            signals.raise_if_received(f"{self._workdir.path} was finished before")
            return self._state
        logging.info("%s: from step %d of %d", self._workdir.path, self._step, num_steps)
        metrics_shape = _check_shapes(self._problem, self._state, self._key, self._mesh)
        call = _compile(self._problem, metrics_shape, self._mesh, loop=steps_per_call > 1)
        data = self._to_devices(self._problem.data)
        clock, size = _Clock(self._step), 1
        with _progress_bar(num_steps, self._step) as bar:
            while self._step < num_steps and not signals.received:
                start, stop = time.perf_counter(), self._next_stop(size)
                metrics = self._advance(call, data, stop)
                bar.update(stop - bar.n)
                size = _next_size(size, steps_per_call, time.perf_counter() - start)
                if stop % self._config.log_every == 0 or stop == num_steps:
                    self._report(metrics, clock, bar)
                if stop % self._config.checkpoint_every == 0:
                    self._checkpoints.save(stop, self._state)
        if self._checkpoints.latest_step != self._step:
            self._checkpoints.save(self._step, self._state)
        signals.raise_if_received(f"step {self._step} of {num_steps} saved in {self._workdir.path}")
        return self._state

    def _next_stop(self, size: int) -> int:
        config, step = self._config, self._step
        periods = (config.log_every, config.checkpoint_every)
        return min(step + size, config.num_steps, *(step - step % p + p for p in periods))

    def _advance(self, call: Callable[..., Any], data: Any, stop: int) -> dict[str, Any]:
        done, self._state, metrics, finite = call(
            self._state, data, self._key, np.int32(self._step), np.int32(stop)
        )
        if not finite:
            raise NonFiniteError(f"step {done}: {_first_bad_leaf(metrics, self._state)}")
        self._step = stop
        return metrics

    def _report(self, metrics: dict[str, Any], clock: "_Clock", bar: tqdm.tqdm) -> None:
        named = named_leaves(jax.device_get(metrics))
        self._workdir.write_metrics(self._step, named, clock.lap(self._step))
        line = "  ".join(f"{name} {value:.4g}" for name, value in named.items() if not value.ndim)
        bar.set_postfix_str(line, refresh=False)
        if bar.disable and (clock.line_is_due() or self._step == self._config.num_steps):
            logging.info("step %d/%d  %s", self._step, self._config.num_steps, line)


def _compile(
    problem: _Problem[State, Batch, Data], metrics_shape: Any, mesh: Mesh | None, *, loop: bool
) -> Callable[..., Any]:
    """Returns `call(state, data, run_key, done, stop) -> (done, state, metrics, finite)`.

    It takes steps `done + 1` to `stop` (one step without `loop`) and stops after the first that
    is not finite.
    """

    def one_step(state: State, data: Data, run_key: jax.Array, done: jax.Array) -> Any:
        batch_key, step_key = jax.random.split(jax.random.fold_in(run_key, done + 1))
        batch = problem.batch_fn(data, batch_key)
        if mesh:
            batch = jax.lax.with_sharding_constraint(batch, _batch_shardings(batch, mesh))
        state, metrics = problem.step_fn(state, batch, step_key)
        return done + 1, state, metrics, _all_finite((state, metrics))

    def many_steps(
        state: State, data: Data, run_key: jax.Array, done: jax.Array, stop: jax.Array
    ) -> Any:
        # `done` and `stop` are arguments, so that calls of any length run the same program and
        # no choice of boundaries changes a bit.
        metrics = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), metrics_shape)
        return jax.lax.while_loop(
            lambda carry: (carry[0] < stop) & carry[3],
            lambda carry: one_step(carry[1], data, run_key, carry[0]),
            (done, state, metrics, jnp.array(True)),
        )

    def single_step(
        state: State, data: Data, run_key: jax.Array, done: jax.Array, stop: jax.Array
    ) -> Any:
        del stop
        return one_step(state, data, run_key, done)

    replicated = mesh and NamedSharding(mesh, PartitionSpec())
    return jax.jit(many_steps if loop else single_step, donate_argnums=0, out_shardings=replicated)


def _data_mesh() -> Mesh | None:
    devices = np.array(jax.devices())
    return Mesh(devices, ("data",), axis_types=(AxisType.Auto,)) if devices.size > 1 else None


def _batch_shardings(batch: Any, mesh: Mesh) -> Any:
    split, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))
    return jax.tree.map(lambda leaf: split if _is_divided(leaf, mesh) else whole, batch)


def _is_divided(leaf: Any, mesh: Mesh) -> bool:
    return jnp.ndim(leaf) > 0 and leaf.shape[0] % mesh.size == 0


def _check_shapes(
    problem: _Problem[State, Batch, Data], state: State, key: jax.Array, mesh: Mesh | None
) -> Any:
    """Returns the metrics' shapes after checking the three functions against each other."""
    batch = jax.eval_shape(problem.batch_fn, problem.data, key)
    for name, leaf in named_leaves(batch).items():
        if mesh and leaf.ndim and not _is_divided(leaf, mesh):
            logging.warning(
                "batch leaf %s: %d devices do not divide its leading axis of %d, "
                "so each of them computes all of it",
                *(name, mesh.size, leaf.shape[0]),
            )
    after, metrics = jax.eval_shape(problem.step_fn, state, batch, key)
    old, new = ({k: (v.shape, v.dtype) for k, v in named_leaves(t).items()} for t in (state, after))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise ValueError(
                f"step_fn: state leaf {name}: wanted {old.get(name)}, got {new.get(name)}"
            )
    for name in named_leaves(metrics):
        if name == "step" or name.endswith("_seconds"):
            raise ValueError(f"step_fn: metric {name}: wanted another name, this one is the loop's")
    return metrics


def _check_memory(state: Any) -> None:
    """Before a compiler is given a state that it would never come back from."""
    leaves = jax.tree.leaves(state)
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
    fits_memory("state", size, ConfigError)


def _is_inexact(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def _all_finite(tree: Any) -> jax.Array:
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree) if _is_inexact(leaf)]
    return jnp.all(jnp.array(finite))


def _first_bad_leaf(metrics: Any, state: Any) -> str:
    for name, leaf in itertools.chain(named_leaves(metrics).items(), named_leaves(state).items()):
        if _is_inexact(leaf):
            bad = np.asarray(~jnp.isfinite(leaf))
            if bad.any() and bad.ndim:
                return f"{name} has {bad.sum()} non-finite of {bad.size}"
            if bad.any():
                return f"{name} is {leaf}"
    raise AssertionError("a step was reported as non-finite and every leaf is finite")


def _next_size(size: int, most: int, seconds: float) -> int:
    if seconds > _CALL_SECONDS:
        return max(1, size // 2)
    return min(2 * size, most) if seconds < _CALL_SECONDS / 2 else size


def _progress_bar(num_steps: int, step: int) -> tqdm.tqdm:
    return tqdm.tqdm(total=num_steps, initial=step, unit="step", disable=not sys.stderr.isatty())


class _Clock:
    """Wall times for the metrics, and the pace of the log."""

    def __init__(self, step: int):
        self._start = self._last = time.perf_counter()
        self._step, self._next_line = step, 0.0

    def lap(self, step: int) -> dict[str, float]:
        now = time.perf_counter()
        mean = (now - self._last) / (step - self._step)
        self._last, self._step = now, step
        return {"step_seconds": mean, "elapsed_seconds": now - self._start}

    def line_is_due(self) -> bool:
        due = time.perf_counter() >= self._next_line
        if due:
            self._next_line = time.perf_counter() + _LOG_LINE_SECONDS
        return due


class _Signals:
    """Notes SIGTERM and SIGINT while it is entered, in the main thread."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        del frame
        self.received = number

    def raise_if_received(self, message: str) -> None:
        if self.received is not None:
            name = signal.Signals(self.received).name
            raise Interrupted(f"{name}: {message}", 128 + self.received)
