"""The memory's likelihoods: rows, the exact column, resuming, bad flags."""

import csv
import dataclasses

import numpy as np
import pytest

from experiments import aan_memory
from tests import command_line
from tests.experiments.idx import write_mnist

TINY = aan_memory.Config(
    num_steps=60, log_every=30, num_aan_steps=2, num_visible=6, num_hidden=(4, 17),
    num_gibbs_steps=(1,), learning_rates=(0.01,), batch_size=16, num_ais_chains=50,
    num_ais_steps=50,
)  # fmt: skip


@pytest.mark.slow
def test_its_rows_lie_near_the_exact_numbers(tmp_path):
    write_mnist(tmp_path, num_train=60, num_test=40)
    config = dataclasses.replace(TINY, data_dir=str(tmp_path))
    rows = aan_memory.train(config, tmp_path / "run")
    assert [row["num_hidden"] for row in rows] == [6, 4, 17]
    assert [row["trained"] for row in rows] == ["with the AAN", *2 * ["on fixed features"]]
    for row in rows[:2]:
        assert abs(row["log_likelihood"] - row["exact"]) < 0.2 and row["reliable"]
    assert np.isnan(rows[2]["exact"])
    for row in rows:
        assert row["low"] <= row["log_likelihood"] <= row["high"] < 0
        assert row["log_likelihood"] > -2 * 6 * np.log(2)
    with open(tmp_path / "run" / "study.csv", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [line["num_hidden"] for line in table] == ["6", "4", "17", "0"]
    assert (tmp_path / "run" / "likelihood.png").stat().st_size > 1000
    np.testing.assert_equal(aan_memory.train(config, tmp_path / "run"), rows)


def test_the_picture_leaves_out_what_is_not_reliable():
    row = dict(log_likelihood=-3.0, low=-3.1, high=-2.9, exact=np.nan, reliable=True)
    assert aan_memory._shown(row) == [-3.0, -3.1, -2.9]
    assert np.all(np.isnan(aan_memory._shown(row | {"reliable": False})))
    assert aan_memory._shown(row | {"reliable": False, "exact": -3.2}) == [-3.2, -3.2, -3.2]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.num_hidden=()", "num_hidden: wanted numbers > 0"),
        ("--config.learning_rates=(0.1, 0.0)", "learning_rates: wanted numbers > 0"),
        ("--config.num_hidden=(16, 16)", "num_hidden: wanted each number once, got (16, 16)"),
        ("--config.learning_rates=(0.1, float('nan'))", "learning_rates: wanted"),
        ("--config.num_ais_chains=1", "num_ais_chains: wanted >= 2, got 1"),
        ("--config.num_ais_steps=0", "num_ais_steps: wanted >= 1"),
        ("--config.held_out=train", "held_out: wanted test or validation"),
    ],
)
def test_bad_flags_are_one_line(tmp_path, capsys, argument, message):
    arguments = [f"--workdir={tmp_path / 'run'}", argument]
    assert command_line.outcome(aan_memory.train, aan_memory.Config(), arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
