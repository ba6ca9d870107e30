"""What a person sees who types an experiment's command, wrongly or rightly."""

import json

import pytest

from experiments import common
from tests import command_line
from tests.training import flagged, toy

FLAGGED = ["-m", "tests.training.flagged"]


def run(path, *flags):
    return toy.run_python([*FLAGGED, f"--workdir={path}", *flags])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--config.num_steps=abc"], "--config.num_steps: wanted int, got 'abc'"),
        (["--config.num_steps=1e3"], "--config.num_steps: wanted int, got '1e3'"),
        (["--config.optimizer.rate=x"], "--config.optimizer.rate: wanted float, got 'x'"),
        (["--config.whiten=maybe"], "--config.whiten: wanted bool, got 'maybe'"),
        (["--config.widths=3,a"], "--config.widths: wanted tuple[int, ...], got ('3,a',)"),
        (["--config.num_step=3"], "unknown config field 'num_step'; did you mean num_steps?"),
        (["--config.optimizer.xyz=3"], "unknown config field 'optimizer.xyz'"),
        (["--config.optimizer=3"], "unknown config field 'optimizer'"),
        (["--config.num_steps"], "Missing value for flag --config.num_steps"),
        (["--config=3"], "flag --config=3: Overriding config is not allowed"),
        (["--config.num_steps=-1"], "bad config: num_steps: wanted 0 to 2**31 - 1, got -1"),
        (["--config.temperature=0"], "bad config: temperature: wanted > 0, got 0.0"),
        (["--config.temperature=nan"], "bad config: temperature: wanted > 0, got nan"),
        (["--config.batch_size=0"], "bad config: batch_size: wanted > 0, got 0"),
        (["--config.optimizer.rate=-1"], "bad config: optimizer.rate: wanted > 0, got -1.0"),
        (["--stepz=3"], "Unknown command line flag 'stepz'"),
        (["extra"], "unexpected argument 'extra'"),
        (["--workdir="], "missing --workdir=DIR"),
        (["--config.action=missing"], "missing file: "),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_2(tmp_path, capsys, arguments, line):
    arguments = [f"--workdir={tmp_path}/run", *arguments]
    assert command_line.outcome(flagged.main, flagged.Config(), arguments) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith(line)
    assert stderr.endswith("(see --help)\n") and stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_no_flags_at_all_is_one_line_and_exit_2():
    result = toy.run_python(FLAGGED)
    assert (result.returncode, result.stderr) == (2, "missing --workdir=DIR (see --help)\n")


@pytest.mark.parametrize(
    ("action", "code", "line"),
    [
        ("interrupt", 130, "interrupted outside training\n"),
        ("diverge", 3, "step 3: loss is nan\n"),
        ("full", 4, "cannot use figure.png: No space left on device\n"),
        ("host memory", 2, "out of memory:  (see --help)\n"),
    ],
)
def test_other_ends_are_one_line_with_their_code(tmp_path, capsys, action, code, line):
    config = flagged.Config(action=action)
    assert common._exit_code(flagged.main, config, str(tmp_path)) == code
    assert capsys.readouterr().err == line


def test_more_than_all_memory_is_one_line_and_exit_2(tmp_path, capsys):
    config = flagged.Config(action="memory")
    assert common._exit_code(flagged.main, config, str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.startswith("out of memory: RESOURCE_EXHAUSTED") and error.count("\n") == 1


def test_a_termination_outside_training_is_one_line_with_its_code(tmp_path):
    result = run(tmp_path, "--config.action=terminate")
    assert (result.returncode, result.stderr) == (143, "terminated outside training\n")
    assert not result.stdout


def test_a_defect_keeps_its_traceback(tmp_path):
    result = run(tmp_path, "--config.action=defect")
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "ValueError: a defect" in result.stderr


def test_training_logs_and_ends_with_its_code(tmp_path, capsys):
    flags = ["--config.num_steps=12", "--config.widths=3", "--config.optimizer.rate=1"]
    result = run(tmp_path / "run", *flags)
    assert result.returncode == 0
    assert "step 12/12  count 12  loss/total" in result.stderr
    assert "orbax" not in result.stderr.lower()
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["num_steps"], config["widths"]) == (12, [3])
    assert config["optimizer"] == {"class": "OptimizerConfig", "rate": 1.0}
    refused = common._exit_code(flagged.main, flagged.Config(num_steps=13), str(tmp_path / "run"))
    assert refused == 4
    assert "of another config: num_steps is 12 there, 13 here" in capsys.readouterr().err


def test_values_arrive_typed(tmp_path):
    flags = [
        "--config.action=show",
        "--config.momenta=1,2",
        "--config.whiten",
        "--config.seed",
        "7",
    ]
    shown = run(tmp_path, *flags).stdout
    assert "momenta=(1.0, 2.0), whiten=True" in shown and "Config(seed=7, " in shown


def test_help_shows_docstring_types_defaults_and_comments():
    result = toy.run_python([*FLAGGED, "--help"])
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("A tiny experiment")
    assert "usage: python -m tests.training.flagged --workdir=DIR" in result.stdout
    assert (
        "  --config.widths=(10, 10)  (tuple[int, ...])\n"
        "      Widths of the hidden layers, from the input on.\n"
    ) in result.stdout
    assert "  --config.optimizer.rate=0.1  (float)\n      Learning rate.\n" in result.stdout
    assert "  --config.num_steps=40  (int)\n" in result.stdout  # From a base class.


def test_importing_an_experiment_defines_no_flags():
    code = (
        "from absl import flags; import tests.training.flagged; assert 'workdir' not in flags.FLAGS"
    )
    assert toy.run_python(["-c", code]).returncode == 0
