"""Processes that are killed, interrupted, locked out or out of disk."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

from gasn_jax.training import checkpoint, workdir
from tests.training import toy

# Many log lines, checkpoints and calls, so that a kill falls into each of them.
OVERRIDES = ["log_every=2", "checkpoint_every=4", "steps_per_call=3"]


def start(path, num_steps=80):
    arguments = [str(path), f"num_steps={num_steps}", *OVERRIDES]
    return toy.start(["-m", "tests.training.toy", *arguments])


def finish(path, num_steps=80):
    process = start(path, num_steps)
    stderr = process.communicate(timeout=120)[1]
    return process.returncode, stderr


def bits(path):
    """All that must be equal: the last checkpoint, and the metrics without times."""
    template = jax.eval_shape(toy.init_fn, jax.random.key(0))
    state, step = checkpoint.Checkpoints(path / "checkpoints").restore(template)
    leaves = {name: leaf.tobytes() for name, leaf in checkpoint.named_leaves(state).items()}
    rows = workdir.read_metrics(path)
    rows = [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in rows]
    return step, leaves, rows


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed")
    assert finish(path) == (0, "")
    return bits(path)


def kill_at_random(path, *, kills, num_steps, seed):
    """Kills the run `kills` times, each at a random instant after its first new checkpoint."""
    rng = np.random.default_rng(seed)
    checkpoints = path / "checkpoints"
    checkpoints.mkdir()
    for _ in range(kills):
        before = set(os.listdir(checkpoints))
        process = start(path, num_steps)
        wait_for(lambda before=before: set(os.listdir(checkpoints)) != before, process)
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "finished before the kill: add steps"


@pytest.mark.slow
def test_three_kills_end_bit_identical(undisturbed, tmp_path):
    kill_at_random(tmp_path, kills=3, num_steps=80, seed=0)
    assert finish(tmp_path)[0] == 0
    assert bits(tmp_path) == undisturbed


@pytest.mark.slow
def test_twenty_kills_end_bit_identical(tmp_path):
    assert finish(tmp_path / "undisturbed", 400)[0] == 0
    (tmp_path / "killed").mkdir()
    kill_at_random(tmp_path / "killed", kills=20, num_steps=400, seed=1)
    assert finish(tmp_path / "killed", 400)[0] == 0
    assert bits(tmp_path / "killed") == bits(tmp_path / "undisturbed")


@pytest.mark.slow
def test_kills_at_any_time_of_a_start_end_bit_identical(undisturbed, tmp_path):
    rng = np.random.default_rng(2)
    for _ in range(8):
        process = start(tmp_path)
        time.sleep(rng.uniform(1, 4))
        process.kill()
        process.communicate()
    assert finish(tmp_path)[0] == 0
    assert bits(tmp_path) == undisturbed


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_and_exit_with_their_code(undisturbed, tmp_path, number, code):
    process = start(tmp_path)
    wait_for(lambda: workdir.read_metrics(tmp_path), process)
    process.send_signal(number)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == code
    saved = checkpoint.Checkpoints(tmp_path / "checkpoints").latest_step
    name = signal.Signals(number).name
    assert stderr == f"{name}: step {saved} of 80 saved in {tmp_path}\n"
    step, _, rows = bits(tmp_path)
    assert step == saved < 80
    assert rows == [row for row in undisturbed[2] if row["step"] <= step]


def test_second_process_is_locked_out(tmp_path):
    config = toy.Config()
    with workdir.Workdir(tmp_path, config):
        code, stderr = finish(tmp_path)
    assert (code, stderr) == (4, f"{tmp_path} is in use by another process\n")


@contextlib.contextmanager
def mounted(path, options):
    path.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    try:
        mount = subprocess.run(command, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if mount.returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.mark.slow
def test_full_disk_is_one_line_and_resumes_with_space(undisturbed, tmp_path):
    with mounted(tmp_path / "disk", "size=100k") as disk:
        code, stderr = finish(disk / "run")
        assert (code, stderr.count("\n")) == (4, 1)
        assert stderr.startswith(f"cannot use {disk}/run") and "No space left" in stderr
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        assert finish(disk / "run")[0] == 0
        assert bits(disk / "run") == undisturbed


def test_read_only_disk_is_one_line(tmp_path):
    with mounted(tmp_path / "disk", "size=1m,ro") as disk:
        assert finish(disk / "run") == (4, f"cannot use {disk}/run: Read-only file system\n")


def test_workdir_below_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    path = pathlib.Path(tmp_path / "file" / "run")
    assert finish(path) == (4, f"cannot use {path}: Not a directory\n")
