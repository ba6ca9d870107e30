"""The loop, in this process: what it computes, writes, refuses and survives."""

import fcntl
import shutil
import signal
import sys
import threading
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.training import checkpoint, errors, loop, workdir
from tests.training import toy


@pytest.fixture(autouse=True, scope="module")
def shared_programs():
    """Compiles the toy once for all of this module, which is most of its time."""
    original, programs = loop._compile, {}

    def shared(problem, metrics_shape, mesh, *, loop):
        key = (problem.step_fn, problem.batch_fn, loop)
        if key not in programs:
            programs[key] = original(problem, metrics_shape, mesh, loop=loop)
        return programs[key]

    with mock.patch.object(loop, "_compile", shared):
        yield


def without_seconds(path):
    rows = workdir.read_metrics(path)
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in rows]


def saved_bits(path, step):
    template = jax.eval_shape(toy.init_fn, jax.random.key(0))
    state, got = checkpoint.Checkpoints(path / "checkpoints").restore(template)
    assert got == step
    return {name: leaf.tobytes() for name, leaf in checkpoint.named_leaves(state).items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of an undisturbed run with the toy's defaults, and what train returned."""
    path = tmp_path_factory.mktemp("finished")
    return path, toy.train(toy.Config(), path)


def test_steps_follow_the_documented_keys(finished):
    config = toy.Config()
    run_key = jax.random.key(config.seed)
    state = toy.init_fn(jax.random.fold_in(run_key, 0))
    step_fn = jax.jit(toy.step_fn)
    batch_fn, data = toy.make_batch_fn(config.batch_size), toy.make_data(config)
    for step in range(1, config.num_steps + 1):
        batch_key, step_key = jax.random.split(jax.random.fold_in(run_key, step))
        state, _ = step_fn(state, batch_fn(data, batch_key), step_key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), finished[1], state)


def test_learns_and_logs_the_steps_that_were_asked_for(finished):
    rows = workdir.read_metrics(finished[0])
    assert [row["step"] for row in rows] == list(range(4, 41, 4))
    assert [row["count"] for row in rows] == list(range(4, 41, 4))
    assert rows[-1]["loss/total"] < 0.5 * rows[0]["loss/total"]
    assert list(rows[0]) == [
        *("step", "count", "loss/by_output", "loss/total"),
        *("step_seconds", "elapsed_seconds"),
    ]


@pytest.mark.parametrize("steps_per_call", [2, 7])
def test_bits_do_not_depend_on_the_chunks(finished, tmp_path, steps_per_call):
    toy.train(toy.Config(), tmp_path, steps_per_call=steps_per_call)
    assert saved_bits(tmp_path, 40) == saved_bits(finished[0], 40)
    assert without_seconds(tmp_path) == without_seconds(finished[0])


def test_log_and_checkpoint_periods_do_not_change_bits(finished, tmp_path):
    toy.train(toy.Config(log_every=3, checkpoint_every=17), tmp_path)
    assert saved_bits(tmp_path, 40) == saved_bits(finished[0], 40)
    assert [row["step"] for row in workdir.read_metrics(tmp_path)][-2:] == [39, 40]
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"17", "34", "40"}


def lowered(data, *, many):
    problem = loop._Problem(toy.init_fn, toy.step_fn, toy.make_batch_fn(16), data)
    key = jax.random.key(0)
    state = jax.jit(toy.init_fn)(key)
    call = loop._compile(problem, loop._check_shapes(problem, state, key, None), None, loop=many)
    return call.lower(state, data, key, np.int32(0), np.int32(1)).as_text()


def test_one_step_per_call_has_no_loop_and_agrees(finished, tmp_path):
    state = toy.train(toy.Config(), tmp_path, steps_per_call=1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state, finished[1])
    for many in (False, True):
        # The random bits have loops of their own, with counters and without the kernel.
        lines = lowered(toy.make_data(toy.Config()), many=many).splitlines()
        assert any("while" in line and "5x3xf32" in line for line in lines) == many


def test_data_is_an_argument_of_the_program_not_a_constant():
    data = toy.make_data(toy.Config())
    other = data | {"inputs": np.full((64, 5), 0.12345, np.float32)}
    assert lowered(data, many=True) == lowered(other, many=True)


def test_same_seed_same_bytes_and_another_seed_others(finished, tmp_path):
    toy.train(toy.Config(), tmp_path / "again")
    assert without_seconds(tmp_path / "again") == without_seconds(finished[0])
    toy.train(toy.Config(seed=1), tmp_path / "other")
    assert without_seconds(tmp_path / "other") != without_seconds(finished[0])


def test_a_finished_run_is_returned_without_compiling(finished):
    before = (finished[0] / "metrics.jsonl").read_bytes()
    with mock.patch.object(loop, "_compile", side_effect=AssertionError):
        state = toy.train(toy.Config(), finished[0])
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(finished[1]), strict=True):
        assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert (finished[0] / "metrics.jsonl").read_bytes() == before


def test_compiles_once(tmp_path):
    traces = []

    def counted(state, batch, key):
        traces.append(1)
        return state, {}

    run_tiny(tmp_path, counted, num_steps=40)
    assert len(traces) == 2  # Once for the shapes, once for the program.


def test_zero_steps_returns_the_initial_state(tmp_path):
    state = toy.train(toy.Config(num_steps=0), tmp_path)
    assert state["step"] == 0
    assert saved_bits(tmp_path, 0)


@pytest.mark.parametrize("steps_per_call", [1, 10])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"nan_loss_at": 19}, "step 19: loss/total is nan"),
        ({"inf_kernel_at": 19}, "step 19: params/Dense_0/kernel has 2 non-finite of 15"),
        ({"inf_kernel_at": 16}, "step 16: params/Dense_0/kernel has 2 non-finite of 15"),
    ],
)
def test_non_finite_stops_naming_step_and_leaf(tmp_path, fault, message, steps_per_call):
    config = toy.Config(**fault)
    for _ in range(2):  # The same again on resuming.
        with pytest.raises(errors.NonFiniteError) as caught:
            toy.train(config, tmp_path, steps_per_call=steps_per_call)
        assert str(caught.value) == message
        assert caught.value.exit_code == 3
    last = (max(fault.values()) - 1) // 8 * 8
    checkpoints = checkpoint.Checkpoints(tmp_path / "checkpoints")
    state, step = checkpoints.restore(jax.eval_shape(toy.init_fn, jax.random.key(0)))
    assert step == last
    assert all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in jax.tree.leaves(state))
    assert all(np.isfinite(row["loss/total"]) for row in workdir.read_metrics(tmp_path))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_and_the_resumed_run_ends_the_same(finished, tmp_path, number, code):
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    write = workdir.Workdir.write_metrics

    def write_and_signal(self, step, *args):
        write(self, step, *args)
        if step == 20:
            signal.raise_signal(number)

    with (
        mock.patch.object(workdir.Workdir, "write_metrics", write_and_signal),
        pytest.raises(errors.Interrupted, match="step 20 of 40 saved") as caught,
    ):
        toy.train(toy.Config(), tmp_path)
    assert caught.value.exit_code == code
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert saved_bits(tmp_path, 20)
    toy.train(toy.Config(), tmp_path)
    assert saved_bits(tmp_path, 40) == saved_bits(finished[0], 40)
    assert without_seconds(tmp_path) == without_seconds(finished[0])


def test_works_in_another_thread(finished, tmp_path):
    thread = threading.Thread(target=toy.train, args=(toy.Config(), tmp_path))
    thread.start()
    thread.join()
    assert saved_bits(tmp_path, 40) == saved_bits(finished[0], 40)


def test_damaged_newest_checkpoint_ends_the_same(finished, tmp_path):
    toy.train(toy.Config(), tmp_path)
    manifest = tmp_path / "checkpoints" / "40" / "state" / "manifest.ocdbt"
    manifest.write_bytes(manifest.read_bytes()[:-1])
    toy.train(toy.Config(), tmp_path)
    assert saved_bits(tmp_path, 40) == saved_bits(finished[0], 40)
    assert without_seconds(tmp_path) == without_seconds(finished[0])


def test_lost_metrics_are_told(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    (run / "metrics.jsonl").unlink()
    with mock.patch.object(loop.logging, "warning") as warning:
        toy.train(toy.Config(), run)
        toy.train(toy.Config(), finished[0])
    count = toy.Config().num_steps // toy.Config().log_every
    warning.assert_called_once_with("%s: metrics.jsonl has lost %d lines", str(run), count)
    config = toy.Config(log_every=7)  # 40 steps: the last line is of the end
    toy.train(config, run := tmp_path / "other")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:-1]))
    with mock.patch.object(loop.logging, "warning") as warning:
        toy.train(config, run)
    warning.assert_called_once_with("%s: metrics.jsonl has lost %d lines", str(run), 1)


def test_a_state_beyond_all_memory_is_refused(tmp_path):
    def init_fn(key):
        return {"x": jnp.zeros((2**20, 2**20))}

    with pytest.raises(errors.ConfigError, match="state: wanted at most the .* GiB of this"):
        loop.train(
            loop.LoopConfig(num_steps=1), tmp_path, init_fn=init_fn, batch_fn=lambda d, k: d,
            step_fn=lambda state, batch, key: (state, {}), data=(),
        )  # fmt: skip


def test_another_config_is_refused_naming_the_field(finished):
    with pytest.raises(errors.WorkdirError, match="num_steps is 40 there, 41 here"):
        toy.train(toy.Config(num_steps=41), finished[0])


def test_a_folder_without_a_run_is_not_made_one(tmp_path):
    with pytest.raises(errors.WorkdirError, match="no run to read: .*/none/config.json"):
        loop.restore(toy.Config(), tmp_path / "none", init_fn=lambda key: key)
    assert not (tmp_path / "none").exists()


def test_a_run_without_checkpoints_is_not_restored(finished, tmp_path):
    shutil.copy(finished[0] / "config.json", tmp_path)
    with pytest.raises(errors.CheckpointError, match="no checkpoint in .*/checkpoints"):
        loop.restore(toy.Config(), tmp_path, init_fn=toy.init_fn)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_run_is_restored_while_another_process_trains_it(finished):
    before = {path: path.stat().st_mtime_ns for path in finished[0].rglob("*")}
    with open(finished[0] / ".lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        state = loop.restore(toy.Config(), finished[0], init_fn=toy.init_fn)
    assert jax.tree.structure(state) == jax.tree.structure(finished[1])
    jax.tree.map(np.testing.assert_array_equal, state, finished[1])
    assert before == {path: path.stat().st_mtime_ns for path in finished[0].rglob("*")}
    with pytest.raises(errors.WorkdirError, match="num_steps is 40 there, 41 here"):
        loop.restore(toy.Config(num_steps=41), finished[0], init_fn=toy.init_fn)


def run_tiny(tmp_path, step_fn, num_steps=2):
    return loop.train(
        loop.LoopConfig(num_steps=num_steps),
        tmp_path,
        init_fn=lambda key: {"x": jnp.ones(2)},
        step_fn=step_fn,
        batch_fn=lambda data, key: data,
        data=(),
    )


@pytest.mark.parametrize(
    ("step_fn", "message"),
    [
        (lambda s, b, k: ({"x": jnp.ones(3)}, {}), r"step_fn: state leaf x: wanted .*\(2,\)"),
        (lambda s, b, k: ({"y": s["x"]}, {}), "step_fn: state leaf x: .*got None"),
        (lambda s, b, k: (s, {"step": 1}), "step_fn: metric step: wanted another name"),
        (lambda s, b, k: (s, {"a_seconds": 1}), "metric a_seconds: wanted another name"),
    ],
)
def test_a_step_of_the_wrong_shape_is_told_before_compiling(tmp_path, step_fn, message):
    with pytest.raises(ValueError, match=message):
        run_tiny(tmp_path, step_fn)


def test_no_metrics_and_no_data_are_fine(tmp_path):
    run_tiny(tmp_path, lambda s, b, k: (s, {}))
    assert without_seconds(tmp_path) == [{"step": 2}]


@pytest.mark.parametrize(
    "values",
    [{"num_steps": -1}, {"log_every": 0}, {"checkpoint_every": 0}, {"seed": -1}, {"seed": 2**32}],
)
def test_config_out_of_range_names_field_and_value(values):
    ((field, value),) = values.items()
    with pytest.raises(ValueError, match=f"{field}: wanted .*, got {value}"):
        loop.LoopConfig(**values)


def test_calls_grow_while_they_are_short_and_shrink_when_long():
    assert loop._next_size(1, 100, 0.01) == 2
    assert loop._next_size(64, 100, 0.01) == 100
    assert loop._next_size(64, 100, 0.4) == 64
    assert loop._next_size(64, 100, 2.0) == 32
    assert loop._next_size(1, 100, 2.0) == 1


MESH_PROGRAM = """
import sys, jax
from tests.training import toy
assert jax.device_count() == int(sys.argv[2])
state = toy.train(toy.Config(), sys.argv[1])
assert all(len(leaf.devices()) == jax.device_count() for leaf in jax.tree.leaves(state))
toy.train(toy.Config(batch_size=12, num_steps=8), sys.argv[1] + "-uneven")
"""


def test_a_signal_while_a_finished_run_is_restored_is_not_lost(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "copy")

    init_fn = toy.init_fn

    def interrupted(key):
        signal.raise_signal(signal.SIGTERM)
        return init_fn(key)

    with (
        mock.patch.object(toy, "init_fn", interrupted),
        pytest.raises(errors.Interrupted) as caught,
    ):
        toy.train(toy.Config(), tmp_path / "copy")
    assert caught.value.exit_code == 143


@pytest.mark.slow
def test_eight_devices_equal_one(finished, tmp_path):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    result = toy.run_python(["-c", MESH_PROGRAM, str(tmp_path / "mesh"), "8"], flags)
    assert result.returncode == 0, result.stderr
    assert "leaf inputs: 8 devices do not divide its leading axis of 12" in result.stderr
    template = jax.eval_shape(toy.init_fn, jax.random.key(0))
    state, _ = checkpoint.Checkpoints(tmp_path / "mesh" / "checkpoints").restore(template)
    for (name, a), b in zip(
        checkpoint.named_leaves(state).items(), jax.tree.leaves(finished[1]), strict=True
    ):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6, err_msg=name)
    for mine, its in zip(
        without_seconds(tmp_path / "mesh"), without_seconds(finished[0]), strict=True
    ):
        np.testing.assert_allclose(mine["loss/total"], its["loss/total"], atol=1e-6)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_bar_on_a_terminal_and_log_lines_elsewhere(tmp_path, capsys, terminal):
    with (
        mock.patch.object(sys.stderr, "isatty", lambda: terminal),
        mock.patch.object(loop.logging, "info") as info,
    ):
        toy.train(toy.Config(), tmp_path)
    assert ("40/40 [" in capsys.readouterr().err) == terminal
    lines = [call.args[0] % call.args[1:] for call in info.call_args_list]
    assert any(line.startswith("step 40/40  count 40") for line in lines) != terminal
