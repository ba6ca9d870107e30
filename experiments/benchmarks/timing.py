"""Fair timing of compiled functions: rounds over all of them, so that noise falls on each alike.

Also the command line that benchmarks share.
"""

import platform
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jaxlib
import numpy as np
from absl import app, flags

from gasn_jax.data import locate


def run(main_fn: Callable[[], None]) -> None:
    """Prints what the numbers were measured with, and runs a benchmark that has defined its flags.

    Bad flags and missing data are one line on stderr, and exit code 2.
    """
    app.run(lambda _: _exit_code(main_fn), flags_parser=_parse)


def _parse(argv):
    if {"-h", "-help", "--help"} & set(argv[1:]):
        print(f"{sys.modules['__main__'].__doc__}\n{flags.FLAGS.main_module_help()}")
        sys.exit(0)
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(_say(f"{error} (see --help)"))


def _exit_code(main_fn):
    device = jax.devices()[0]
    print(
        f"jax {jax.__version__}, jaxlib {jaxlib.__version__}, python {platform.python_version()}, "
        f"{device.device_kind} ({device.platform})\n"
    )
    try:
        main_fn()
    except (locate.DataError, ModuleNotFoundError) as error:
        return _say(error)
    return 0


def _say(message):
    print(" ".join(str(message).split()), file=sys.stderr)
    return 2


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
