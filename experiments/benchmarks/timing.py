"""Fair timing of compiled functions: rounds over all of them, so that noise falls on each alike."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np


def rounds(
    calls: Mapping[str, Callable[[], Any]], *, num_rounds: int = 15, num_warmup: int = 2
) -> dict[str, float]:
    """Median wall time of each call, seconds; all are called once a round, in random order.

    Random, since a call pays for the memory that the one before it gave back.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    rng = np.random.default_rng(0)
    for round_number in range(num_warmup + num_rounds):
        for name in rng.permutation(list(calls)):
            start = time.perf_counter()
            jax.block_until_ready(calls[name]())
            if round_number >= num_warmup:
                times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def temporary_bytes(function: Callable, *args) -> int:
    """Temporary memory of a jitted function as XLA plans it, bytes, arguments and results aside."""
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


def table(header: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
