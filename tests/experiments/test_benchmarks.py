"""The benchmarks' tables, at the smallest sizes: that they run, not what they say."""

import pytest

from experiments.benchmarks import chain


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "num_rows"),
    [
        (chain.gradient_table, 1),
        (chain.operations_table, 1),
        (chain.covariance_table, 4),
        (chain.precision_table, 3),
    ],
)
def test_chain_inference(monkeypatch, table, num_rows):
    monkeypatch.setattr(chain, "SIZES", ((2, 3, 8),))
    monkeypatch.setattr(chain, "COVARIANCE_SIZE", (1, 3, 2))
    monkeypatch.setattr(chain, "PRECISION_SIZE", (2, 3, 2))
    lines = table(1).splitlines()
    assert len(lines) == 2 + num_rows and len({line.count("|") for line in lines}) == 1
