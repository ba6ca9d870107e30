"""A tiny run for these tests: least squares with bfloat16, integer and empty leaves on the side.

As a program, `python -m tests.training.toy WORKDIR [field=value ...]` trains it and exits with the
code of the run.
"""

import dataclasses
import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from gasn_jax.training import errors, loop


@dataclasses.dataclass(frozen=True)
class Config(loop.LoopConfig):
    # Training steps of the whole run.
    num_steps: int = 40
    # Steps between two lines of metrics.jsonl.
    log_every: int = 4
    # Steps between two checkpoints.
    checkpoint_every: int = 8
    # Examples in a batch.
    batch_size: int = 16
    # Step whose loss becomes NaN; 0 for none.
    nan_loss_at: int = 0
    # Step whose kernel becomes infinite; 0 for none.
    inf_kernel_at: int = 0


def make_data(config):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(64, 5)).astype(np.float32)
    return {
        "inputs": inputs,
        "targets": inputs @ rng.normal(size=(5, 3)).astype(np.float32),
        # Here and not in the step, so that all these configs share one compiled program.
        "nan_loss_at": np.int32(config.nan_loss_at),
        "inf_kernel_at": np.int32(config.inf_kernel_at),
    }


def init_fn(key):
    shared = jnp.zeros((3,))
    return {
        "params": {"Dense_0": {"kernel": 0.1 * jax.random.normal(key, (5, 3)), "bias": shared}},
        "average": shared,
        "half": jnp.ones((4,), jnp.bfloat16),
        "empty": jnp.zeros((0, 2)),
        "step": 0,
    }


def loss_fn(params, batch):
    dense = params["Dense_0"]
    error = batch["inputs"] @ dense["kernel"] + dense["bias"][None] - batch["targets"]
    return jnp.mean(error**2), jnp.mean(error**2, 0)


def step_fn(state, batch, key):
    step = state["step"] + 1
    (loss, by_output), grads = jax.value_and_grad(loss_fn, has_aux=True)(state["params"], batch)
    loss = jnp.where(step == batch["nan_loss_at"], jnp.nan, loss)
    params = jax.tree.map(lambda p, g: p - 0.05 * g, state["params"], grads)
    # Bits, which compile in a fraction of the time that other draws take.
    noise = 1e-5 * jax.random.bits(key, (5, 3), jnp.uint8).astype(jnp.float32)
    boom = jnp.where(step == batch["inf_kernel_at"], jnp.inf, 0.0)
    params["Dense_0"]["kernel"] = (params["Dense_0"]["kernel"] + noise).at[0, :2].add(boom)
    state = {
        "params": params,
        "average": 0.9 * state["average"] + 0.1 * params["Dense_0"]["bias"],
        "half": state["half"] * 0.99,
        "empty": state["empty"],
        "step": step,
    }
    return state, {"loss": {"total": loss, "by_output": by_output}, "count": step}


@functools.cache
def make_batch_fn(batch_size):
    def batch_fn(data, key):
        index = jax.random.bits(key, (batch_size,), jnp.uint8) % 64
        return jax.tree.map(lambda leaf: leaf[index] if leaf.ndim else leaf, data)

    return batch_fn


def train(config, workdir, **options):
    return loop.train(
        config,
        workdir,
        init_fn=init_fn,
        step_fn=step_fn,
        batch_fn=make_batch_fn(config.batch_size),
        data=make_data(config),
        **options,
    )


def run_python(arguments, environment=None):
    """Returns the finished process of the interpreter with warnings as errors; see `start`."""
    process = start(arguments, environment)
    stdout, stderr = process.communicate(timeout=120)
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


def start(arguments, environment=None):
    """Starts the interpreter at the repository's root, on the CPU, warnings as errors."""
    root = pathlib.Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-W", "error", *arguments],
        cwd=root,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def main(workdir, *overrides):
    values = dict(override.split("=") for override in overrides)
    steps_per_call = int(values.pop("steps_per_call", 10))
    types = {field.name: field.type for field in dataclasses.fields(Config)}
    config = Config(**{name: types[name](value) for name, value in values.items()})
    print("ready", flush=True)
    try:
        train(config, workdir, steps_per_call=steps_per_call)
    except errors.RunError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
