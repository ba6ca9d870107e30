"""The run directory: one config, one process, lines that resume exactly."""

import dataclasses
import json
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from gasn_jax.structured import graph
from gasn_jax.training import errors, workdir


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.1


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 0
    num_steps: int = 10
    widths: tuple[int, ...] = (1, 2)
    inner: Inner = Inner()


def open_and_close(path, config):
    with workdir.Workdir(path, config):
        pass


def test_writes_config_and_versions(tmp_path):
    open_and_close(tmp_path / "run", Config())
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    inner = {"class": "Inner", "rate": 0.1}
    assert config == {"seed": 0, "num_steps": 10, "widths": [1, 2], "inner": inner}
    versions = json.loads((tmp_path / "run" / "versions.json").read_text())
    assert {"python", "jax", "jaxlib", "flax", "optax", "numpy", "gasn_jax"} <= versions.keys()
    assert versions["device_kind"]


def test_same_config_is_welcome(tmp_path):
    open_and_close(tmp_path, Config(inner=Inner(1.0)))
    open_and_close(tmp_path, Config(inner=Inner(1.0)))
    open_and_close(tmp_path, Config(inner=Inner(1)))
    with pytest.raises(errors.WorkdirError, match="inner.rate is 1.0 there, true here"):
        open_and_close(tmp_path, Config(inner=Inner(True)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(num_steps=20), "num_steps is 10 there, 20 here"),
        (Config(inner=Inner(0.2)), "inner.rate is 0.1 there, 0.2 here"),
        (Config(widths=(1, 2, 3)), r"widths is \[1, 2\] there, \[1, 2, 3\] here"),
        (Config(seed=1, num_steps=5), "num_steps is 10 there, 5 here; seed is 0 there, 1 here"),
        (Inner(), 'num_steps is 10 there, "absent" here; rate is "absent" there, 0.1 here'),
    ],
)
def test_another_config_is_refused_naming_the_field(tmp_path, config, message):
    open_and_close(tmp_path, Config())
    with pytest.raises(errors.WorkdirError, match=message) as caught:
        open_and_close(tmp_path, config)
    assert "\n" not in str(caught.value)
    assert json.loads((tmp_path / "config.json").read_text())["num_steps"] == 10


def test_a_held_workdir_is_refused_until_it_is_free(tmp_path):
    with workdir.Workdir(tmp_path, Config()):
        with pytest.raises(errors.WorkdirError, match="in use by another process"):
            open_and_close(tmp_path, Config())
    open_and_close(tmp_path, Config())


def test_a_failed_open_frees_the_lock(tmp_path):
    open_and_close(tmp_path, Config())
    with pytest.raises(errors.WorkdirError):
        open_and_close(tmp_path, Config(seed=1))
    open_and_close(tmp_path, Config())


def test_other_versions_are_told(tmp_path):
    open_and_close(tmp_path, Config())
    versions = json.loads((tmp_path / "versions.json").read_text())
    (tmp_path / "versions.json").write_text(json.dumps(versions | {"jax": "0.0.1"}))
    with mock.patch.object(logging, "warning") as warning:
        open_and_close(tmp_path, Config())
    assert 'jax is "0.0.1" there' in warning.call_args[0][1]
    assert json.loads((tmp_path / "versions.json").read_text())["jax"] == "0.0.1"  # only read
    with workdir.Workdir(tmp_path, Config()) as run:
        run.open_metrics(0)  # written from now on
    assert json.loads((tmp_path / "versions.json").read_text()) == versions


@pytest.mark.parametrize("content", [b"{", b"5", b"{}", b'{"seed": \xff}'])
@pytest.mark.parametrize("name", ["config.json", "versions.json"])
def test_damaged_json_is_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(errors.WorkdirError, match=f"{name} is damaged: ") as caught:
        open_and_close(tmp_path, Config())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", [b"5\n", b"{}\n", b'{"step": "\xff"}\n', b"{\n"])
def test_damaged_metrics_are_one_line(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_bytes(line)
    with pytest.raises(errors.WorkdirError, match=r"metrics.jsonl is damaged: "):
        workdir.read_metrics(tmp_path)


def test_path_below_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.WorkdirError, match=r"cannot use .*/file/run: Not a directory"):
        open_and_close(tmp_path / "file" / "run", Config())


def test_metrics_have_step_first_then_sorted_names_then_times(tmp_path):
    with workdir.Workdir(tmp_path, Config()) as run:
        run.open_metrics(0)
        values = {"loss/b": np.float32(0.1), "loss/a": jnp.bfloat16(0.3), "count": np.int32(3)}
        run.write_metrics(5, values | {"image": np.eye(2, dtype=bool)}, {"step_seconds": 0.25})
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"step": 5, "count": 3, "image": [[true, false], [false, true]], '
        '"loss/a": 0.30078125, "loss/b": 0.1, "step_seconds": 0.25}\n'
    )
    assert workdir.read_metrics(tmp_path)[0]["loss/b"] == 0.1


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, jnp.bfloat16])
def test_numbers_come_back_bitwise(dtype):
    rng = np.random.default_rng(0)
    values = (rng.normal(size=200) * 10.0 ** rng.integers(-4, 4, size=200)).astype(dtype)
    back = np.array(json.loads(json.dumps(workdir.to_json(values))), np.float64).astype(dtype)
    assert back.tobytes() == values.tobytes()


def test_resuming_drops_later_and_half_written_lines(tmp_path):
    with workdir.Workdir(tmp_path, Config()) as run:
        run.open_metrics(0)
        for step in (2, 4, 6):
            run.write_metrics(step, {"loss": step / 3}, {})
    path = tmp_path / "metrics.jsonl"
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole) + '{"step": 8, "lo')
    assert [row["step"] for row in workdir.read_metrics(tmp_path)] == [2, 4, 6]
    with workdir.Workdir(tmp_path, Config()) as run:
        run.open_metrics(4)
        assert path.read_text() == "".join(whole[:2])
        run.write_metrics(6, {"loss": 2.0}, {})
    assert path.read_text() == "".join(whole)


def test_a_full_disk_is_one_line(tmp_path):
    with workdir.Workdir(tmp_path, Config()) as run:
        run.open_metrics(0)
        with (
            mock.patch.object(run, "_metrics") as file,
            pytest.raises(errors.WorkdirError, match="No space left on device"),
        ):
            file.flush.side_effect = OSError(28, "No space left on device")
            run.write_metrics(1, {}, {})


@pytest.mark.parametrize("function", ["os.makedirs", "builtins.open"])
def test_a_read_only_disk_is_one_line(tmp_path, function):
    with (
        mock.patch(function, side_effect=OSError(30, "Read-only file system")),
        pytest.raises(errors.WorkdirError) as caught,
        workdir.Workdir(tmp_path / "run", Config()),
    ):
        pass
    assert str(caught.value) == f"cannot use {tmp_path / 'run'}: Read-only file system"
    assert caught.value.exit_code == 4


def test_no_metrics_file_reads_as_empty(tmp_path):
    assert workdir.read_metrics(tmp_path) == []


def test_of_many_differences_five_are_named():
    there, here = ({f"field{i}": i + offset for i in range(7)} for offset in (0, 1))
    line = workdir._differences(there, here)
    assert line.startswith("field0 is 0 there, 1 here; ")
    assert line.endswith("field4 is 4 there, 5 here; and 2 more")
    assert "more" not in workdir._differences({}, dict.fromkeys("abcde", 1))


class Relu(nn.Module):
    width: int = 3


class Tanh(nn.Module):
    width: int = 3


@dataclasses.dataclass(frozen=True)
class OfAnything:
    value: Any


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (Relu(), Tanh()),
        (jax.nn.relu, jax.nn.gelu),
        (nn.initializers.zeros, nn.initializers.ones),
        (np.arange(4000), np.arange(4000) + (np.arange(4000) == 2000)),
        ({"rate": np.float32(0.5)}, {"rate": 0.25}),
        (graph.grid(30, 30, 2), graph.grid(30, 30, 2, neighbours=8)),
    ],
    ids=["modules", "functions", "initializers", "arrays", "dicts", "graphs"],
)
def test_a_run_is_of_its_config_and_no_other(tmp_path, value, other):
    open_and_close(tmp_path, OfAnything(value))
    open_and_close(tmp_path, OfAnything(value))
    with pytest.raises(errors.WorkdirError, match="of another config"):
        open_and_close(tmp_path, OfAnything(other))


def test_what_cannot_be_compared_is_no_config(tmp_path):
    with pytest.raises(errors.ConfigError, match="value: wanted what another process can compare"):
        open_and_close(tmp_path, OfAnything(object()))
