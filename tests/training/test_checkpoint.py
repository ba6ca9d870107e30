"""Checkpoints: bitwise round trips, damage never restored, disks that fail."""

import shutil
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging

from gasn_jax.training import checkpoint, errors


def make_state(step):
    key = jax.random.key(step)
    params = {"dense": {"kernel": jax.random.normal(key, (40, 30)), "bias": jnp.ones(3)}}
    return {
        "params": params,
        "optimizer": optax.adam(0.1).init(params),
        "half": jax.random.normal(key, (7,), jnp.bfloat16),
        "counts": [jnp.int32(step), np.arange(5, dtype=np.uint8)],
        "flags": (jnp.array([True, False]), None),
        "none": jnp.zeros((0, 3)),
        "a.b": jnp.float32(-0.0),
    }


def assert_bitwise(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (name, leaf), other in zip(
        checkpoint.named_leaves(got).items(), jax.tree.leaves(want), strict=True
    ):
        leaf, other = np.asarray(leaf), np.asarray(other)
        assert (leaf.dtype, leaf.shape) == (other.dtype, other.shape), name
        assert leaf.tobytes() == other.tobytes(), name


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Steps 1 and 2, pristine: copy before use."""
    directory = tmp_path_factory.mktemp("saved")
    checkpoints = checkpoint.Checkpoints(directory)
    for step in (1, 2):
        checkpoints.save(step, make_state(step))
    return directory


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copied")


def restore(directory, template=None):
    template = make_state(0) if template is None else template
    return checkpoint.Checkpoints(directory).restore(template)


def files_of(directory, step):
    return sorted(path for path in (directory / str(step)).rglob("*") if path.is_file())


def flip_bit(path, position):
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1 << (position % 8)
    path.write_bytes(data)


def test_round_trip_is_bitwise(copied):
    state, step = restore(copied)
    assert step == 2
    assert_bitwise(state, make_state(2))


def test_template_may_be_shapes(copied):
    state, _ = restore(copied, jax.eval_shape(lambda: make_state(0)))
    assert_bitwise(state, make_state(2))


def test_nothing_saved_restores_none(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path / "new")
    assert checkpoints.restore(make_state(0)) is None
    assert checkpoints.latest_step is None


def test_keeps_the_newest(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=2)
    for step in range(8, 12):
        checkpoints.save(step, {"x": jnp.full(2, step)})
    assert checkpoints.latest_step == 11
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "11"]


def test_a_step_under_another_number_is_never_restored(copied):
    newest = max(int(path.name) for path in copied.iterdir())
    (copied / str(newest)).rename(copied / str(newest + 5))
    state, step = restore(copied)
    assert step < newest
    assert_bitwise(state, make_state(step))


def assert_true_or_previous(directory):
    """Whatever was damaged: the newest step as it was, or the one before it."""
    state, step = restore(directory)
    assert_bitwise(state, make_state(step))
    return step


def test_a_flipped_bit_in_any_file_is_never_restored(saved, tmp_path):
    fell_back = 0
    rng = np.random.default_rng(0)
    for index, original in enumerate(files_of(saved, 2)):
        for trial, position in enumerate(rng.integers(original.stat().st_size, size=2)):
            copy = shutil.copytree(saved, tmp_path / f"{index}-{trial}")
            flip_bit(copy / original.relative_to(saved), int(position))
            fell_back += assert_true_or_previous(copy) == 1
    assert fell_back == 2 * len(files_of(saved, 2))


@pytest.mark.slow
def test_many_flipped_bits_are_never_restored(saved, tmp_path):
    rng = np.random.default_rng(1)
    for trial in range(150):
        original = files_of(saved, 2)[trial % len(files_of(saved, 2))]
        copy = shutil.copytree(saved, tmp_path / "copy")
        flip_bit(copy / original.relative_to(saved), int(rng.integers(original.stat().st_size)))
        assert_true_or_previous(copy)
        shutil.rmtree(copy)


@pytest.mark.parametrize("keep_bytes", [0, 0.5], ids=["emptied", "halved"])
def test_a_truncated_file_is_never_restored(saved, tmp_path, keep_bytes):
    for index, original in enumerate(files_of(saved, 2)):
        copy = shutil.copytree(saved, tmp_path / str(index))
        path = copy / original.relative_to(saved)
        path.write_bytes(path.read_bytes()[: int(keep_bytes * path.stat().st_size)])
        assert_true_or_previous(copy)


def test_a_missing_file_is_never_restored(saved, tmp_path):
    for index, original in enumerate(files_of(saved, 2)):
        copy = shutil.copytree(saved, tmp_path / str(index))
        (copy / original.relative_to(saved)).unlink()
        assert_true_or_previous(copy)


def test_fallback_names_step_and_reason_in_one_line_and_frees_the_step(copied):
    data = max(files_of(copied, 2), key=lambda path: path.stat().st_size)
    flip_bit(data, 100)
    checkpoints = checkpoint.Checkpoints(copied)
    with mock.patch.object(logging, "warning") as warning:
        state, step = checkpoints.restore(make_state(0))
        assert step == 1 == checkpoints.latest_step
        assert_bitwise(state, make_state(1))
        checkpoints.save(2, make_state(2))
        assert checkpoints.restore(make_state(0))[1] == 2
    lines = [call.args[0] % call.args[1:] for call in warning.call_args_list]
    name = data.relative_to(copied / "2")
    # Some versions of Orbax have warnings of their own.
    assert [line for line in lines if "damaged" in line] == [
        f"removed damaged checkpoints: step 2: file {name} is damaged; resuming from step 1"
    ]


def test_a_leaf_that_reached_the_files_wrong_is_named(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(1, make_state(1))
    orbax_save = checkpoints._orbax.save

    def save_wrong(path, args):
        args.item["half"] = args.item["half"].copy()
        args.item["half"][3] += 1
        orbax_save(path, args=args)

    with mock.patch.object(checkpoints._orbax, "save", save_wrong):
        checkpoints.save(2, make_state(2))
    with mock.patch.object(logging, "warning") as warning:
        assert checkpoints.restore(make_state(0))[1] == 1
    assert "step 2: leaf half fails its checksum" in warning.call_args[0][1]


def test_what_cannot_be_read_for_want_of_memory_is_not_damaged(copied):
    checkpoints = checkpoint.Checkpoints(copied)
    with (
        mock.patch.object(checkpoints._orbax, "restore", side_effect=MemoryError("no memory")),
        pytest.raises(errors.CheckpointError, match="2/state cannot be read: no memory"),
    ):
        checkpoints.restore(make_state(0))
    assert restore(copied)[1] == 2


def test_all_damaged_is_an_error_and_nothing_is_removed(copied):
    for step in (1, 2):
        shutil.rmtree(copied / str(step) / "state")
    with pytest.raises(errors.CheckpointError, match="no good checkpoint in .*step 2.*step 1"):
        restore(copied)
    assert (copied / "1").exists() and (copied / "2").exists()


def test_another_state_is_an_error_and_nothing_is_removed(copied):
    template = make_state(0)
    template["params"]["dense"]["bias"] = jnp.ones(4)
    message = r"leaf params/dense/bias: wanted float32\[4\], got float32\[3\]"
    with pytest.raises(errors.CheckpointError, match=message):
        restore(copied, template)
    with pytest.raises(errors.CheckpointError, match="leaf more: wanted int32.*got none"):
        restore(copied, make_state(0) | {"more": jnp.int32(1)})
    assert restore(copied)[1] == 2


def test_read_only_nothing_is_created_or_removed(copied):
    flip_bit(max(files_of(copied, 2), key=lambda path: path.stat().st_size), 100)
    shutil.copytree(copied / "1", copied / "3.unfinished")
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    with mock.patch.object(logging, "warning") as warning:
        state, step = checkpoint.Checkpoints(copied, read_only=True).restore(make_state(0))
    assert step == 1
    assert_bitwise(state, make_state(1))
    assert "passed over damaged checkpoints" in warning.call_args[0][0]
    assert before == {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    missing = copied / "none"
    absent = checkpoint.Checkpoints(missing, read_only=True)
    assert absent.restore(make_state(0)) is None and absent.latest_step is None
    assert not missing.exists()


def test_half_written_steps_are_ignored(copied):
    shutil.copytree(copied / "2", copied / "3.unfinished")
    assert restore(copied)[1] == 2
    assert not (copied / "3.unfinished").exists()


def test_typed_keys_are_refused(tmp_path):
    with pytest.raises(ValueError, match="leaf chain/key: wanted numbers, got a typed PRNG key"):
        checkpoint.Checkpoints(tmp_path).save(1, {"chain": {"key": jax.random.key(0)}})


def test_unusable_directory_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        errors.WorkdirError, match=r"cannot use .*file/checkpoints: Not a directory"
    ):
        checkpoint.Checkpoints(tmp_path / "file" / "checkpoints")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(30, "Read-only file system"), "Read-only file system"),
        (
            ValueError(
                "RESOURCE_EXHAUSTED: Error writing x\n: No space left on device [source='x']"
            ),
            "No space left on device",
        ),
    ],
)
def test_a_full_or_read_only_disk_is_one_line(tmp_path, error, reason):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(1, make_state(1))
    with (
        mock.patch.object(checkpoints._orbax, "save", side_effect=error),
        pytest.raises(errors.WorkdirError) as caught,
    ):
        checkpoints.save(2, make_state(2))
    assert str(caught.value) == f"cannot use {tmp_path}: {reason}"
    assert caught.value.exit_code == 4
    assert restore(tmp_path)[1] == 1


def test_a_leaf_path_names_dicts_tuples_and_attributes():
    tree = {"params": {"kernel": 1}, "optimizer": optax.adam(0.1).init({"w": jnp.ones(1)})}
    assert "optimizer/0/mu/w" in checkpoint.named_leaves(tree)
    assert list(checkpoint.named_leaves(jnp.ones(1))) == ["state"]
    with pytest.raises(ValueError, match="two leaves have the path a/b"):
        checkpoint.named_leaves({"a/b": 1, "a": {"b": 2}})


def test_keeping_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="keep: wanted >= 1, got 0"):
        checkpoint.Checkpoints(tmp_path, keep=0)
