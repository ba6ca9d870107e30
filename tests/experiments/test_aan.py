"""The AAN's command: its files, resuming, both data sets, and what it refuses."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import aan, common, images
from gasn_jax.data import lfw_parts, locate
from tests import command_line
from tests.experiments.idx import write_mnist

TINY = aan.Config(
    num_steps=4, log_every=2, batch_size=8, num_visible=6, num_hidden=5, channels=(3, 4),
    hidden=(5,), num_samples=9, num_sample_steps=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Both data sets, of noise."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    write_mnist(path)
    faces = (
        lfw_parts.LabelledFaces(
            rng.integers(0, 256, (12, 32, 32, 3)).astype(np.uint8), np.zeros((12, 32, 32), np.int32)
        )
        for _ in range(3)
    )
    lfw_parts.write_npz(lfw_parts.LFWParts(*faces), path / "lfw_parts" / "lfw_parts_32x32.npz")
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "memory"), [("mnist", "rbm"), ("faces", "rbm"), ("faces", "uniform")]
)
def test_it_trains_writes_its_files_and_resumes(tmp_path, data_dir, dataset, memory):
    config = dataclasses.replace(TINY, data_dir=data_dir, dataset=dataset, memory=memory)
    # From a checkpoint half way: the chains and the momentum of the memory are in the state.
    config = dataclasses.replace(config, persistent=True, checkpoint_every=2)
    run = tmp_path / "run"
    state = aan.train(config, run)
    files = {path.name for path in run.iterdir()}
    assert {"samples.png", "samples.npz", "ratio.png", "ratio.csv"} <= files
    assert ("walk.png" in files) == (memory == "rbm")
    with np.load(run / "samples.npz", allow_pickle=False) as archive:
        samples = archive["samples"]
    shape = (28, 28, 1) if dataset == "mnist" else (32, 32, 3)
    assert samples.dtype == np.uint8 and samples.shape == (9, *shape)
    np.testing.assert_array_equal(aan.draw(config, state, jax.random.key(0)), samples)
    (newest,) = (run / "checkpoints").glob("*4")
    shutil.rmtree(newest)
    again = aan.train(config, run)
    jax.tree.map(np.testing.assert_array_equal, again, state)
    shutil.move(run, tmp_path / "elsewhere")
    drawn = aan.sample(config, tmp_path / "elsewhere", 9, config.seed)
    np.testing.assert_array_equal(drawn, samples)


@pytest.mark.slow
def test_celeba_is_read_and_bad_images_are_left_out_by_flag(tmp_path, caplog):
    folder = tmp_path / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    for number in (1, 2, 162771, 182638):
        Image.new("RGB", (178, 218), (200, 100, 0)).save(folder / f"{number:06}.jpg")
    (folder / "000003.jpg").write_bytes(b"no image")
    config = dataclasses.replace(TINY, dataset="celeba", data_dir=str(tmp_path))
    with pytest.raises(locate.DataError, match="image 000003.jpg"):
        aan.load(config)
    found = aan.load(dataclasses.replace(config, skip_bad_images=True))
    assert [len(part) for part in found] == [2, 1, 1] and "000003.jpg" in caplog.text
    assert found.train.shape[1:] == images.DATASETS["celeba"].shape
    run = tmp_path / "run"
    aan.train(dataclasses.replace(config, skip_bad_images=True, num_steps=2, batch_size=2), run)
    with np.load(run / "samples.npz", allow_pickle=False) as archive:
        assert archive["samples"].shape == (9, 64, 64, 3)
    assert (run / "walk.png").stat().st_size > 1000
    (folder / "182638.jpg").unlink()
    with pytest.raises(locate.DataError, match="its test part holds no images"):
        aan.load(dataclasses.replace(config, skip_bad_images=True))


def test_pixels_are_scaled_there_and_back():
    pixels = np.arange(256, dtype=np.uint8)
    assert images.scaled(pixels).min() == -1 and images.scaled(pixels).max() == 1
    np.testing.assert_array_equal(images.as_bytes(images.scaled(pixels)), pixels)


def test_every_field_has_a_comment():
    config = aan.Config()
    without = {field.name for field in dataclasses.fields(config)} - set(
        common._comments(type(config))
    )
    # Those of two share one.
    assert without <= {"generator_rate", "num_hidden", "num_sample_steps"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.dataset=cifar"], "dataset: wanted one of mnist, celeba, faces, got 'cifar'"),
        (["--config.channels=(8, 8, 8)"], "height: wanted a positive multiple of 8"),
        (["--config.memory=dbn"], "memory: wanted one of rbm, uniform, got 'dbn'"),
        (["--config.num_samples=0"], "num_samples: wanted >= 1, got 0"),
        (["--config.batch_size=1", "--config.entropy_weight=1.0"], "batch_size: wanted >= 2 for"),
        (["--config.data_dir=/nowhere"], "not found in /nowhere"),
        (
            ["--config.data_dir=/nowhere", "--config.dataset=celeba"],
            "img_align_celeba.zip not found",
        ),
    ],
)
def test_bad_flags_are_one_line(tmp_path, capsys, arguments, message):
    arguments = [f"--workdir={tmp_path / 'run'}", *arguments]
    assert command_line.outcome(aan.train, aan.Config(), arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


def command(arguments):
    """Exit code of the module's command line, in this process."""
    return command_line.outcome(aan.train, aan.Config(), arguments, aan.MODES)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["rbm", "uniform"])
def test_sampling_takes_the_runs_own_config_and_no_data(tmp_path, data_dir, capsys, memory):
    run, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(data_dir, data)
    aan.train(dataclasses.replace(TINY, data_dir=str(data), memory=memory, num_steps=0), run)
    shutil.rmtree(data)
    assert command([f"--workdir={run}", "--mode=sample", "--num_samples=5"]) == 0
    with np.load(run / "drawn.npz", allow_pickle=False) as archive:
        samples = archive["samples"]
    assert samples.shape == (5, 28, 28, 1) and (run / "drawn.png").stat().st_size > 500
    config = common.of_run(str(run), aan.Config())
    again = aan.sample(config, str(run), num_samples=5, sample_seed=0)
    np.testing.assert_array_equal(again, samples)
    capsys.readouterr()
    other = tmp_path / "other"
    other.mkdir()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    config = (run / "config.json").read_text().replace('"seed": 0', '"seed": "a"')
    (damaged / "config.json").write_text(config)
    (other / "config.json").write_text('{"seed": 1}')
    for arguments, code, message in (
        (["--mode=draw"], 2, "--mode: wanted train or sample, got 'draw'"),
        (["--mode=sample"], 2, "missing --workdir=DIR"),
        (["--mode", "draw"], 2, "--mode: wanted train or sample, got 'draw'"),
        (["--mode", "sample"], 2, "missing --workdir=DIR"),
        (["--mode"], 2, "missing value of --mode"),
        ([f"--workdir={run}", "--mode=sample", "--num_samples=0"], 2, "num_samples"),
        (
            [f"--workdir={run}", "--mode=sample", "--num_samples=x"],
            *(2, "--num_samples: wanted int, got 'x'"),
        ),
        ([f"--workdir={run}", "--mode=sample", "--config.seed=1"], 2, "leave --config out"),
        ([f"--workdir={tmp_path / 'none'}", "--mode=sample"], 4, "no run to read"),
        ([f"--workdir={other}", "--mode=sample"], 4, "holds a run of another experiment"),
        ([f"--workdir={damaged}", "--mode=sample"], 4, "holds a damaged config.json"),
    ):
        assert command(arguments) == code
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not (tmp_path / "none").exists()
    shutil.rmtree(run / "checkpoints")
    assert command([f"--workdir={run}", "--mode=sample"]) == 4
    assert "no checkpoint in" in capsys.readouterr().err
    assert command(["--mode=train", "--help"]) == 0
    assert "--mode=sample [--num_samples=100]" in capsys.readouterr().out
