"""The study of the AAN: every file it names, and that a second call restores all of it."""

import dataclasses
import shutil

import numpy as np
import pytest

from experiments import aan_study, digit_classifier
from tests import command_line
from tests.experiments.idx import write_mnist

TINY = aan_study.Config(
    num_steps=4, log_every=1, num_seeds=1, sizes=(4,), batch_size=8, channels=(2, 3), hidden=(4,),
    num_eval_samples=20, num_walks=9, num_classifier_steps=2, arms=tuple(aan_study.ARMS),
)  # fmt: skip


@pytest.mark.slow
def test_it_writes_its_files_and_resumes(tmp_path):
    write_mnist(tmp_path, num_train=120, num_test=60)
    arms = ("memory", "noise")
    config = dataclasses.replace(TINY, data_dir=str(tmp_path), arms=arms)
    found = aan_study.train(config, tmp_path / "run")
    assert list(found) == [f"{arm}, 4" for arm in arms]
    files = {path.name for path in (tmp_path / "run").iterdir()}
    for name in ("samples.png", "figure2", "figure3.png", "mixing", "study.csv"):
        assert {name} <= files or {f"{name}.png", f"{name}.csv"} <= files
    assert {"classifier", "memory-4-0", "noise-4-0"} <= files
    table = (tmp_path / "run" / "study.csv").read_text()
    again = aan_study.train(config, tmp_path / "run")
    np.testing.assert_array_equal(again["noise, 4"][0].samples, found["noise, 4"][0].samples)
    assert (tmp_path / "run" / "study.csv").read_text() == table
    steps, ratio = found["noise, 4"][0].ratio
    assert list(steps) == [1, 2, 3, 4] and np.all(ratio > 0)
    assert found["memory, 4"][0].walk["correlation"].shape == (10,)
    assert 0 <= found["memory, 4"][0].statistics["painted_class"] <= 1
    assert not found["noise, 4"][0].walk
    for folder in ("classifier", "noise-4-0"):  # finished, which saves their training
        shutil.copytree(tmp_path / "run" / folder, tmp_path / "noise" / folder)
    noise = dataclasses.replace(config, arms=("noise",))
    aan_study.train(noise, tmp_path / "noise")
    files = {path.name for path in (tmp_path / "noise").iterdir()}
    assert {"figure2.png", "samples.png"} <= files
    assert not files & {"figure3.png", "mixing.png"}


def test_the_running_mean_is_of_what_was():
    values = np.arange(30.0)
    got = aan_study._running_mean(values)
    wanted = [values[max(0, i - 9) : i + 1].mean() for i in range(30)]
    np.testing.assert_allclose(got, wanted)
    np.testing.assert_allclose(aan_study._running_mean(values[:3]), [0, 0.5, 1])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.sizes=()", "sizes: wanted numbers >= 1"),
        ("--config.sizes=(0,)", "sizes: wanted numbers >= 1, got (0,)"),
        ("--config.arms=()", "arms: wanted some of memory, memory with entropy, noise"),
        ("--config.arms=('rbm',)", "got ('rbm',)"),
        ("--config.num_seeds=0", "num_seeds: wanted >= 1"),
        ("--config.held_out=train", "held_out: wanted test or validation"),
    ],
)
def test_bad_flags_are_one_line(tmp_path, capsys, argument, message):
    arguments = [f"--workdir={tmp_path / 'run'}", argument]
    assert command_line.outcome(aan_study.train, aan_study.Config(), arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


@pytest.mark.slow
def test_the_classifier_learns(tmp_path):
    """Digits whose class is written into them: all right after a few steps."""
    write_mnist(tmp_path, num_train=600, num_test=100, legible=True)
    config = digit_classifier.Config(num_steps=150, batch_size=32, data_dir=str(tmp_path))
    assert digit_classifier.train(config, tmp_path / "run").accuracy > 0.95
    assert '"accuracy"' in (tmp_path / "run" / "evaluation.json").read_text()
