"""The synthetic experiment: its files, its resume, its flags, and that its default learns."""

import contextlib
import csv
import io
import json
import shutil
from unittest import mock

import jax
import numpy as np
import pytest

from experiments import common
from experiments import gasn_synthetic as synthetic
from gasn_jax.training import loop, workdir
from tests import command_line
from tests.training import toy

TINY = dict(num_seeds=3, num_steps=5, log_every=2, checkpoint_every=4, num_eval=20, batch_size=4)
FILES = [
    *("config.json", "versions.json", "metrics.jsonl", "summary.json", "convergence.csv"),
    *("figure_1a_objective.png", "figure_1b_beliefs.png", "figure_1c_mean_belief.png"),
    *("figure_1a_objective.csv", "figure_1b_beliefs.csv", "figure_1c_mean_belief.csv"),
]


@pytest.fixture(autouse=True, scope="module")
def one_program():
    """Compiles the tiny run, the only one that these tests train, once for all of them."""
    original, programs = loop._compile, []

    def shared(*args, **kwargs):
        programs[:] = programs or [original(*args, **kwargs)]
        return programs[0]

    with mock.patch.object(loop, "_compile", shared):
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of a tiny run, and what it printed."""
    path, stdout = tmp_path_factory.mktemp("synthetic") / "run", io.StringIO()
    with contextlib.redirect_stdout(stdout):
        synthetic.train(synthetic.Config(**TINY), path)
    return path, stdout.getvalue()


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def metrics(path):
    rows = workdir.read_metrics(path)
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in rows]


def test_a_run_writes_its_files_and_prints_its_table(finished):
    path, stdout = finished
    assert [name for name in FILES if not (path / name).stat().st_size] == []
    summary = json.loads((path / "summary.json").read_text())
    assert stdout == synthetic.table(summary) + "\n"
    assert (summary["num_seeds"], summary["num_steps"], summary["setting"]) == (3, 5, "default")
    assert 0 < summary["lowest_final_belief"] < 1


def test_evaluations_stand_where_the_loop_logs(finished):
    path, _ = finished
    curves = synthetic.read_curves(path)
    np.testing.assert_array_equal(curves.steps, [2, 4, 5])
    assert (curves.objective.shape, curves.belief.shape) == ((3, 3), (3, 3, 5))
    assert np.all(curves.belief > 0) and np.all(curves.belief < 1)


def test_tables_hold_the_numbers_of_the_metrics(finished):
    path, _ = finished
    curves = synthetic.read_curves(path)
    header, *rows = read_csv(path / "convergence.csv")
    assert header[:3] == ["seed", "converged_at", "belief_1"] and len(rows) == 3
    np.testing.assert_array_equal(np.array(rows)[:, 2:].astype(float), curves.belief[-1])
    header, *rows = read_csv(path / "figure_1a_objective.csv")
    assert len(header) == 4 and len(rows) == 3
    np.testing.assert_allclose([float(r[1]) for r in rows], np.median(curves.objective, axis=1))
    header, *rows = read_csv(path / "figure_1c_mean_belief.csv")
    np.testing.assert_allclose(np.array(rows, float)[:, 1:6], curves.belief.mean(axis=1))
    np.testing.assert_allclose(np.array(rows, float)[:, -1], curves.belief.min(axis=(1, 2)))
    header, *rows = read_csv(path / "figure_1b_beliefs.csv")
    assert len(header) == 5 and len(rows) >= 1000


def test_a_resumed_run_ends_with_the_same_bits(finished, tmp_path, capsys):
    path, stdout = finished
    copy = tmp_path / "run"
    shutil.copytree(path, copy)
    shutil.rmtree(copy / "checkpoints" / "5")
    assert (copy / "checkpoints" / "4").is_dir()
    for name in FILES[3:]:
        (copy / name).unlink()
    config = synthetic.Config(**TINY)
    synthetic.train(config, copy)
    assert capsys.readouterr().out == stdout
    assert metrics(copy) == metrics(path)
    for name in FILES[3:]:
        assert (copy / name).read_bytes() == (path / name).read_bytes(), name


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        (
            "setting=best",
            "bad config: setting: wanted one of default, paper_literal, mean_penalty, got 'best'",
        ),
        ("temperature=0", "bad config: temperature: wanted > 0, got 0.0"),
        ("temperature=inf", "bad config: temperature: wanted > 0, got inf"),
        ("temperature=1e-60", "bad config: temperature: wanted > 0 and within float32, got 1e-60"),
        ("batch_size=0", "bad config: batch_size: wanted >= 1, got 0"),
        ("num_seeds=0", "bad config: num_seeds: wanted >= 1, got 0"),
        ("num_eval=0", "bad config: num_eval: wanted >= 1, got 0"),
        ("num_steps=0", "bad config: num_steps: wanted >= 1, got 0"),
        ("num_steps=1.5", "--config.num_steps: wanted int, got '1.5'"),
        ("seeds=3", "unknown config field 'seeds'"),
    ],
)
def test_a_bad_flag_is_one_line_and_exit_2(tmp_path, capsys, flag, line):
    arguments = [f"--workdir={tmp_path}/run", f"--config.{flag}"]
    assert command_line.outcome(synthetic.train, synthetic.Config(), arguments) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith(line) and stderr.count("\n") == 1


def test_another_setting_in_the_same_workdir_is_refused(finished, capsys):
    path, _ = finished
    config = synthetic.Config(**TINY, setting="paper_literal")
    assert common._exit_code(synthetic.train, config, str(path)) == 4
    assert "setting is " in capsys.readouterr().err


def test_help_describes_every_field():
    result = toy.run_python(["-m", "experiments.gasn_synthetic", "--help"])
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(synthetic.__doc__.strip())
    for name, _, value, comment in common._fields(synthetic.Config()):
        assert f"  --config.{name}={value}  (" in result.stdout and comment, name


def test_settings_are_the_documented_ones():
    default, literal, mean = (
        synthetic.Config(setting=name).system
        for name in ("default", "paper_literal", "mean_penalty")
    )
    assert (default.weight_decay, literal.weight_decay, mean.weight_decay) == (0.05, 1.0, 0.1)
    assert {(c.discriminator_rate, c.temperature, c.loss) for c in (default, literal, mean)} == {
        (0.1, 0.1, "saturating")
    }


def curves(rows, steps):
    belief = np.repeat(np.array(rows, float).T[:, :, None], 5, axis=2)
    return synthetic.Curves(np.array(steps), np.zeros(belief.shape[:2]), belief)


def test_convergence_is_for_good():
    rows = [
        [0.99, 0.99, 0.99, 0.99],  # From the first evaluation on.
        [0.10, 0.95, 0.96, 0.97],  # The threshold itself is enough.
        [0.99, 0.10, 0.99, 0.99],  # A relapse.
        [0.99, 0.99, 0.99, 0.94],  # A relapse at the end.
        [0.10, 0.10, 0.10, 0.10],
    ]
    got = curves(rows, [10, 20, 30, 35])
    np.testing.assert_array_equal(synthetic.convergence(got), [10, 20, 30, np.inf, np.inf])
    got.belief[-1, 0, 4] = 0.5  # One variable of five is enough to fail.
    assert synthetic.convergence(got)[0] == np.inf


@pytest.mark.slow
def test_the_default_converges():
    config = synthetic.Config(num_seeds=20, num_steps=200)
    state = jax.jit(lambda key: synthetic.init(config, key))(jax.random.key(5))
    step_fn = synthetic.make_step_fn(config)

    @jax.jit
    def trained(state, batch):
        def body(state, key):
            state, metrics = step_fn(state, batch, key)
            return state, (metrics["belief"], metrics["good_seeds"])

        return jax.lax.scan(body, state, jax.random.split(jax.random.key(6), config.num_steps))

    _, (belief, good_seeds) = trained(state, synthetic.real_strings(config))
    assert np.min(belief[-1]) >= 0.95
    assert good_seeds[-1] == 20
    assert np.min(belief[9]) < 0.5  # It had something to learn.
