"""The neural chain CRF: what it learns, its files, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import crf_ocr
from gasn_jax.data import ocr_words
from tests import command_line

WORDS = ("abc", "abcd", "bcd", "cab", "dab", "bad", "add", "bed")
TINY = crf_ocr.Config(
    num_steps=40, log_every=20, num_splits=2, batch_size=8, channels=(4,), hidden=8,
    dropout_rate=0.0, shift=0, learning_rate=0.02,
)  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Words in every fold whose letters have an image each, with a little noise."""
    rng = np.random.default_rng(0)
    shapes = rng.integers(0, 2, size=(26, *ocr_words.PIXELS)).astype(np.uint8)
    words = [word for word in WORDS for _ in range(ocr_words.NUM_FOLDS)]
    lengths = [len(word) for word in words]
    letter = np.array([ord(letter) - ord("a") for letter in "".join(words)], np.int32)
    noise = rng.random((len(letter), *ocr_words.PIXELS)) < 0.02
    letters = ocr_words.Letters(
        letter=letter,
        word_id=np.repeat(np.arange(len(words), dtype=np.int32), lengths),
        position=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        fold=np.repeat(np.arange(len(words), dtype=np.int32) % ocr_words.NUM_FOLDS, lengths),
        pixels=shapes[letter] ^ noise.astype(np.uint8),
    )
    path = tmp_path_factory.mktemp("data")
    ocr_words.write_npz(letters, path / "ocr_letters" / "ocr_letters.npz")
    return str(path)


@pytest.mark.slow
def test_it_learns_to_read_and_resumes(tmp_path, data_dir):
    config = dataclasses.replace(TINY, data_dir=data_dir)
    study = crf_ocr.train(config, tmp_path)
    assert set(study) == {"chain", "letters alone"} and study["chain"].shape == (2, 2)
    assert study["chain"][:, 0].min() > 0.6  # a guess would be right in less than 1 of 4
    assert (tmp_path / "words.png").stat().st_size > 1000
    lines = (tmp_path / "accuracy.csv").read_text().splitlines()
    assert len(lines) == 3 and lines[0].startswith("split,chain letters,chain words")
    again = crf_ocr.train(dataclasses.replace(config, num_splits=1), tmp_path)
    assert all(np.array_equal(study[arm][:1], again[arm]) for arm in study)


@pytest.mark.parametrize("train_folds", [1, 9])
@pytest.mark.parametrize("held_out", ["test", "validation"])
def test_parts_are_disjoint_and_the_test_is_never_trained_on(data_dir, train_folds, held_out):
    words = ocr_words.load(data_dir, pixels=True)
    config = dataclasses.replace(TINY, train_folds=train_folds, held_out=held_out)
    training, other = crf_ocr._parts(config, words, 3)
    wanted = {3} if train_folds == 1 else set(range(10)) - {3}
    assert set(training.folds.tolist()) == wanted
    assert (set(other.folds.tolist()) <= wanted) == (held_out == "validation")
    num_chosen = sum(int((words.folds == fold).sum()) for fold in wanted)
    if held_out == "validation":
        assert len(other.lengths) == num_chosen // 5
        assert len(training.lengths) + len(other.lengths) == num_chosen
    else:
        assert len(training.lengths) + len(other.lengths) == len(words.lengths)


def test_accuracy_counts_letters_and_whole_words():
    words = ocr_words.Words(
        states=np.array([[0, 1, -1], [2, 2, 2]]), lengths=np.array([2, 3]), folds=None, pixels=None
    )
    found = np.array([[0, 1, -1], [2, 0, 2]])
    np.testing.assert_allclose(crf_ocr.accuracy(found, words), [4 / 5, 1 / 2])


def test_images_are_moved_by_at_most_the_shift():
    image = jnp.zeros((1, 16, 8)).at[0, 8, 4].set(1.0)
    places = set()
    for seed in range(60):
        moved = np.asarray(crf_ocr._shifted(jax.random.key(seed), image, 1))
        assert moved.shape == (1, 16, 8) and moved.sum() == 1
        places.add(tuple(np.argwhere(moved[0])[0].tolist()))
    assert places == {(y, x) for y in (7, 8, 9) for x in (3, 4, 5)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.train_folds=2"], "train_folds: wanted 1 or 9, got 2"),
        (["--config.num_splits=11"], "num_splits: wanted 1 to 10, got 11"),
        (["--config.dropout_rate=1"], "dropout_rate: wanted in [0, 1), got 1.0"),
        (["--config.held_out=train"], "held_out: wanted test or validation, got 'train'"),
        (["--config.data_dir=/nowhere"], "/nowhere"),
    ],
)
def test_bad_flags_are_one_line(tmp_path, capsys, arguments, message):
    arguments = [f"--workdir={tmp_path / 'run'}", *arguments]
    assert command_line.outcome(crf_ocr.train, crf_ocr.Config(), arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
