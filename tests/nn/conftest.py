"""Settings of the tests of networks."""

import jax
import pytest


@pytest.fixture(autouse=True)
def full_precision():
    """Products of float32 as precise as float32: accelerators round their factors by default."""
    with jax.default_matmul_precision("highest"):
        yield
