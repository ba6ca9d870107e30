"""Settings of all tests. Warnings are errors by pyproject.toml."""

import os

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib: tests have no display

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

from tests.compiling import LIGHT_FLAGS  # noqa: E402

pytest.register_assert_rewrite("tests.laws")

# [N] + [M, N] is more often a forgotten axis than a wish.
jax.config.update("jax_numpy_rank_promotion", "raise")

# No deadline: the first example of a test compiles. Derandomized: every run tests the same cases.
hypothesis.settings.register_profile("gasn_jax", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("gasn_jax")


def pytest_addoption(parser):
    parser.addoption(
        "--compile-fully",
        action="store_true",
        help="compile as users do; without it with little of the compiler's effort, for tests' "
        "programs are many, small and run a few times",
    )


def pytest_configure(config):
    if config.getoption("compile_fully"):
        return
    jax.config.update("jax_disable_most_optimizations", True)
    # Unset if there are none: of spaces alone it would be the name of a file of flags.
    if flags := f"{LIGHT_FLAGS} {os.environ.get('XLA_FLAGS', '')}".strip():
        os.environ["XLA_FLAGS"] = flags


@pytest.fixture
def x64():
    """Float64 inside the test; arrays and functions from outside keep their float32."""
    with jax.enable_x64(True):
        yield
