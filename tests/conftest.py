"""Settings of all tests. Warnings are errors by pyproject.toml."""

import os
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib: tests have no display

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

pytest.register_assert_rewrite("tests.laws")

# [N] + [M, N] is more often a forgotten axis than a wish.
jax.config.update("jax_numpy_rank_promotion", "raise")

# No deadline: the first example of a test compiles. Derandomized: every run tests the same cases.
hypothesis.settings.register_profile("gasn_jax", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("gasn_jax")


# Tests of what programs do, not of how precisely they do it when the compiler has done its best:
# theirs are many, small and run a few times, and cost about half if compiled with little effort.
_COMPILED_LIGHTLY = (
    "data",
    "energy",
    "evaluation",
    "experiments",
    "learning",
    "nn",
    "systems",
    "training",
)


@pytest.fixture(scope="module", autouse=True)
def compiler_effort(request):
    """Little in the folders above."""
    folder = request.path.relative_to(Path(__file__).parent).parts[0]
    jax.config.update("jax_disable_most_optimizations", folder in _COMPILED_LIGHTLY)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def x64():
    """Float64 inside the test; arrays and functions from outside keep their float32."""
    with jax.enable_x64(True):
        yield
