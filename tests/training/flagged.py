"""A tiny experiment, to test the command line of all of them."""

import atexit
import dataclasses
import os
import signal

import jax
import jax.numpy as jnp

from experiments import common
from gasn_jax.training import errors
from tests.training import toy


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    # Learning rate.
    rate: float = 0.1

    def __post_init__(self):
        errors.require(self.rate > 0, "optimizer.rate", "> 0", self.rate)


@dataclasses.dataclass(frozen=True)
class Config(toy.Config):
    # Softness of the output.
    temperature: float = 0.1
    # Widths of the hidden layers,
    # from the input on.
    widths: tuple[int, ...] = (10, 10)
    # Momentum of each optimizer.
    momenta: tuple[float, ...] = (0.9,)
    # Whether to whiten the data.
    whiten: bool = False
    # What to do: train, or one of the failures.
    action: str = "train"
    optimizer: OptimizerConfig = OptimizerConfig()

    def __post_init__(self):
        super().__post_init__()
        errors.require(self.temperature > 0, "temperature", "> 0", self.temperature)
        errors.require(self.batch_size > 0, "batch_size", "> 0", self.batch_size)


def main(config, workdir):
    if config.action == "train":
        toy.train(config, workdir)
    elif config.action == "missing":
        open(os.path.join(workdir, "absent", "words.csv"))
    elif config.action == "defect":
        raise ValueError("a defect")
    elif config.action == "interrupt":
        raise KeyboardInterrupt
    elif config.action == "terminate":
        atexit.register(print, "the interpreter has ended by itself")
        os.kill(os.getpid(), signal.SIGTERM)
    elif config.action == "diverge":
        raise errors.NonFiniteError("step 3: loss is nan")
    elif config.action == "full":
        raise OSError(28, "No space left on device", "figure.png")
    elif config.action == "memory":
        # 4 PiB
        jax.jit(lambda: jnp.zeros((2**20, 2**20, 2**10)))().block_until_ready()
    elif config.action == "host memory":
        raise MemoryError
    elif config.action == "show":
        print(config)


if __name__ == "__main__":
    common.run(main, Config())
