"""The commands that train GASNs on digits and words: files, resuming, and what they refuse."""

import csv
import dataclasses
import json
import sys

import jax
import numpy as np
import pytest

from experiments import common, gasn, gasn_datasets, gasn_grids, gasn_horses, gasn_words
from gasn_jax.data import digits, horses, ocr_words
from gasn_jax.evaluation import samples as statistics
from gasn_jax.learning import chow_liu
from gasn_jax.structured import engine, graph
from tests import command_line

TINY = dict(
    num_steps=4,
    log_every=2,
    checkpoint_every=2,
    batch_size=4,
    num_eval_samples=10,
    generator_hidden=(4,),
    discriminator_hidden=(4,),
)
DIGITS = gasn.Config(**TINY, num_seeds=2, noise_dim=2)
WORDS = ("abc", "abcd", "bcd", "abc", "cab", "dab", "bad", "cabbage", "dad", "add", "bed", "bee")


@pytest.fixture(scope="module", autouse=True)
def quick_compiles(tmp_path_factory):
    """Compiling is nearly all that tiny runs do: compile each program once."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.5,
    }
    before = {name: jax.config.values[name] for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A folder with a small set of words in the published format, some in every fold."""
    words = [word for word in WORDS for _ in range(4)]
    lengths = [len(word) for word in words]
    letters = ocr_words.Letters(
        letter=np.array([ord(letter) - ord("a") for letter in "".join(words)], np.int32),
        word_id=np.repeat(np.arange(len(words), dtype=np.int32), lengths),
        position=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        fold=np.repeat(np.arange(len(words), dtype=np.int32) % ocr_words.NUM_FOLDS, lengths),
        pixels=np.zeros((sum(lengths), *ocr_words.PIXELS), np.uint8),
    )
    path = tmp_path_factory.mktemp("data")
    ocr_words.write_npz(letters, path / "ocr_letters" / "ocr_letters.npz")
    return path


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("digits") / "run"
    return path, gasn.train(DIGITS, str(path))


def read_table(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def without_times(path):
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.endswith("_seconds")} for line in lines]


def test_digits_writes_its_files(digits_run):
    path, evaluation = digits_run
    assert json.loads((path / "evaluation.json").read_text()) == evaluation
    table = read_table(path / "evaluation.csv")
    assert [row["row"] for row in table] == [
        "samples",
        "map",
        "train",
        "independent",
        "first_order",
    ]
    assert {len(values) for values in evaluation["samples"].values()} == {2}
    mean, spread = np.mean(evaluation["map"]["mmd"]), np.std(evaluation["map"]["mmd"], ddof=1)
    assert float(table[1]["mmd mean"]) == pytest.approx(mean, rel=1e-4)
    assert float(table[1]["mmd sd"]) == pytest.approx(spread, rel=1e-4)
    for name in ("samples.png", "curves.png"):
        assert (path / name).read_bytes().startswith(b"\x89PNG")
    assert len(read_table(path / "curves.csv")) == 2


def test_samples_are_kept_as_images(digits_run):
    path, evaluation = digits_run
    with np.load(path / "samples.npz", allow_pickle=False) as archive:
        drawn = {name: archive[name] for name in archive}
    assert {states.shape for states in drawn.values()} == {(2, 10, 64)}
    # Whatever the order of a model's variables, files hold pixels row by row.
    held_out = digits.load().test.images.reshape(-1, 64)
    wanted = statistics.mean_error(drawn["map"][1].astype(np.int32), held_out)
    assert evaluation["map"]["mean_error"][1] == pytest.approx(float(wanted), rel=1e-5)
    order = DIGITS.order()
    assert order[7:10].tolist() == [7, 15, 14] and sorted(order) == list(range(64))
    grid = dataclasses.replace(DIGITS, structure="grid")
    assert grid.order().tolist() == list(range(64))


def test_a_tree_is_that_of_the_training_part():
    config = dataclasses.replace(DIGITS, structure="tree")
    parents = chow_liu.parents(digits.load().train.images.reshape(-1, 64), 2)
    wanted = graph.tree(2, parents)
    assert config.system(gasn.load(config)["train"]).engine == engine.Tree(wanted)


@pytest.mark.slow
def test_digits_on_every_structure_side_by_side(tmp_path):
    config = gasn_grids.Config(**TINY, num_seeds=2, noise_dim=2)
    rows = gasn_grids.train(config, str(tmp_path))
    table = read_table(tmp_path / "study.csv")
    assert [row["row"] for row in table] == list(rows)
    assert set(rows) == {
        *gasn_grids.ARMS,
        *(f"{arm}, MAP" for arm in gasn_grids.ARMS),
        "training data",
    }
    assert len(rows["tree"]["mmd"]) == 2
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")
    for folder in ("grid-exact", "grid-belief-propagation"):
        assert all(line["converged"] == 1 for line in without_times(tmp_path / folder))
    assert rows["grid, exact, MAP"]["reliable"] == [1.0, 1.0]


@pytest.mark.slow
def test_horses_of_two_arms_and_every_seed(tmp_path, monkeypatch):
    """One that samples and one that sees marginals; the configs of all are built."""
    assert set(gasn_horses.Config().runs()) == set(gasn_horses.ARMS)
    arms = ("grid", "no structure, marginals")
    monkeypatch.setattr(gasn_horses, "ARMS", {arm: gasn_horses.ARMS[arm] for arm in arms})
    rng = np.random.default_rng(0)
    parts = (
        horses.MaskedImages(np.zeros((m, 32, 32, 3), np.uint8), rng.integers(0, 2, (m, 32, 32)))
        for m in (12, 5, 5)
    )
    path = tmp_path / "weizmann_horses" / "weizmann_horse_32x32.npz"
    horses.write_npz(horses.Horses(*parts), path)
    options = TINY | dict(generator_hidden=(4, 2), discriminator_hidden=(2,))
    config = gasn_horses.Config(**options, data_dir=str(tmp_path), num_seeds=2, noise_dim=2)
    rows = gasn_horses.train(config, str(tmp_path / "run"))
    assert {len(rows[arm]["components"]) for arm in arms} == {2}
    assert len(set(rows["grid"]["boundary"])) == 2  # two seeds, two models
    assert (tmp_path / "run" / "study.png").read_bytes().startswith(b"\x89PNG")


def test_two_seeds_give_two_models(digits_run):
    evaluation = digits_run[1]
    assert len(set(evaluation["samples"]["nearest_train"])) == 2


def test_the_same_command_again_changes_nothing(digits_run):
    path, evaluation = digits_run
    before = {name: (path / name).read_bytes() for name in ("metrics.jsonl", "evaluation.json")}
    assert gasn.train(DIGITS, str(path)) == evaluation
    assert before == {name: (path / name).read_bytes() for name in before}


def test_a_trained_run_is_drawn_from(digits_run):
    path, _ = digits_run
    before = {name: (path / name).read_bytes() for name in ("samples.npz", "metrics.jsonl")}
    arguments = [f"--workdir={path}", "--mode=sample", "--num_samples=7", "--sample_seed=3"]
    assert command_line.outcome(gasn.train, gasn.Config(), arguments, gasn.MODES) == 0
    with np.load(path / "drawn.npz", allow_pickle=False) as archive:
        drawn = {name: archive[name] for name in archive.files}
    assert {name: x.shape for name, x in drawn.items()} == {
        "samples": (2, 7, 64),
        "map": (2, 7, 64),
    }
    assert set(np.unique(drawn["samples"])) == {0, 1}
    assert (path / "drawn.png").read_bytes().startswith(b"\x89PNG")
    other = gasn.sample(DIGITS, str(path), 7, 4)["samples"].states
    assert np.any(other != drawn["samples"])
    assert gasn.sample(DIGITS, str(path), 1, 4)["map"].states.shape == (2, 1, 64)
    assert before == {name: (path / name).read_bytes() for name in before}


@pytest.mark.slow
def test_a_run_cut_in_two_ends_the_same(digits_run, tmp_path, monkeypatch):
    path, evaluation = digits_run

    class Killed(BaseException):
        pass

    def kill(self, step, metrics, seconds):
        if step > 2:
            raise Killed
        write(self, step, metrics, seconds)

    write = gasn.workdir.Workdir.write_metrics
    with monkeypatch.context() as patch:
        patch.setattr(gasn.workdir.Workdir, "write_metrics", kill)
        with pytest.raises(Killed):
            gasn.train(DIGITS, str(tmp_path))
    assert gasn.train(DIGITS, str(tmp_path)) == evaluation
    assert without_times(tmp_path) == without_times(path)


@pytest.mark.slow
def test_words_runs_every_setting_and_collects_them(data_dir, tmp_path):
    config = gasn_words.Config(
        **TINY, data_dir=str(data_dir), noise_dims=(0,), num_seeds=2, held_out="validation"
    )
    study = gasn_words.train(config, str(tmp_path))
    assert {arm: list(runs) for arm, runs in study.items()} == {
        "structured": [0],
        "independent": [0],
    }
    assert len(read_table(tmp_path / "study.csv")) == 3 + 2 * 2
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    for name in ("structured-0", "independent-0"):
        assert (tmp_path / name / "samples.txt").read_text().startswith("real, held out")
    table = {row["row"]: row for row in read_table(tmp_path / "structured-0" / "evaluation.csv")}
    # Training data hold nothing unseen; counting one step back makes no unseen pair either.
    assert float(table["train"]["unseen_bigrams mean"]) == 0.0
    assert float(table["first_order"]["unseen_bigrams mean"]) == 0.0
    assert float(table["train"]["words mean"]) == 1.0


def test_counted_references_keep_what_they_should():
    rng = np.random.RandomState(0)
    first = rng.randint(0, 3, 4000)
    states = np.stack([first, (first + 1) % 3, rng.randint(0, 3, 4000)], 1)
    states[:2000, 2] = -1
    examples = gasn.Examples(states, np.repeat([2, 3], 2000))
    independent = gasn_datasets.counted(rng, examples, order=0).states
    chained = gasn_datasets.counted(rng, examples, order=1).states
    for counted in (independent, chained):
        assert np.array_equal(counted < 0, states < 0)
    assert np.all(chained[:, 1] == (chained[:, 0] + 1) % 3)
    assert np.mean(independent[:, 1] == (independent[:, 0] + 1) % 3) == pytest.approx(
        1 / 3, abs=0.05
    )


def test_hamming_counts_differences():
    left, right = np.array([[0, 1, 1], [1, 1, 1]]), np.array([[0, 0, 0], [1, 1, 1]])
    assert gasn_datasets.hamming(left, right).tolist() == [[2, 1], [3, 0]]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--config.noise_dims=3"], "unknown config field 'noise_dims'; did you mean noise_dim?"),
        (
            ["--config.temperature=0"],
            "bad config: temperature: wanted > 0 and within float32, got 0.0",
        ),
        *(
            ([f"--config.temperature={bad}"], "bad config: temperature: wanted > 0 and within")
            for bad in ("-1", "nan", "inf")
        ),
        (
            ["--config.batch_size=1000000000000"],
            "--config.batch_size: wanted -2147483647 to 2147483647, got 1000000000000",
        ),
        (
            ["--config.generator_hidden=10,1000000000000"],
            "--config.generator_hidden: wanted -2147483647 to 2147483647, got 1000000000000",
        ),
        (
            ["--config.gradient=jacobian", "--config.structure=grid"],
            "bad config: gradient: wanted jacobian of chains only, got 'jacobian'",
        ),
        (
            ["--config.weight_decay=-1"],
            "bad config: weight_decay: wanted >= 0 and finite, got -1.0",
        ),
        (
            ["--config.temperature=1e-60"],
            "bad config: temperature: wanted > 0 and within float32, got 1e-60",
        ),
        (
            ["--config.generator_rate=inf"],
            "bad config: generator_rate: wanted > 0 and within float32, got inf",
        ),
        (["--config.num_steps=-1"], "bad config: num_steps: wanted 0 to 2**31 - 1, got -1"),
        (["--config.batch_size=0"], "bad config: batch_size: wanted >= 1, got 0"),
        (["--config.num_seeds=0"], "bad config: num_seeds: wanted >= 1, got 0"),
        (
            ["--config.dataset=faces"],
            "bad config: dataset: wanted one of digits, horses, ocr_words, got",
        ),
        (["--config.held_out=train"], "bad config: held_out: wanted one of validation, test, got"),
        (["--config.loss=hinge"], "bad config: loss: wanted one of saturating, non_saturating,"),
        (
            ["--config.dataset=ocr_words", "--config.structure=grid"],
            "bad config: structure: wanted chain for ocr_words, got 'grid'",
        ),
        (
            ["--config.dataset=ocr_words", "--config.inference=belief_propagation"],
            "bad config: inference: wanted exact for ocr_words, got 'belief_propagation'",
        ),
        (
            ["--config.structure=ring"],
            "bad config: structure: wanted one of chain, tree, grid, got",
        ),
        (
            ["--config.dataset=horses", "--config.structure=grid"],
            "bad config: inference: wanted belief_propagation for so large a grid, got 'exact'",
        ),
        (
            ["--config.network=convolutional"],
            "bad config: network: wanted dense for a chain, got 'convolutional'",
        ),
        (
            [
                "--config.structure=grid",
                "--config.network=convolutional",
                "--config.generator_hidden=2,2,2,2,2",
            ],
            "bad config: generator_hidden: wanted so few layers that 8x8 can be halved by all but",
        ),
        (
            ["--config.dataset=horses", "--config.data_dir=/nowhere"],
            "data file weizmann_horses/weizmann_horse_32x32.npz not found in",
        ),
        (
            ["--config.dataset=ocr_words", "--config.data_dir=/nowhere"],
            "data file ocr_letters/ocr_letters.npz not found in /nowhere",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_2(tmp_path, capsys, arguments, line):
    assert (
        command_line.outcome(gasn.train, gasn.Config(), [f"--workdir={tmp_path}/run", *arguments])
        == 2
    )
    stderr = capsys.readouterr().err
    assert stderr.startswith(line) and stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_malformed_data_file_is_one_line_and_exit_2(tmp_path, capsys):
    (tmp_path / "ocr_letters").mkdir()
    (tmp_path / "ocr_letters" / "ocr_letters.npz").write_bytes(b"junk")
    flags = ["--config.dataset=ocr_words", f"--config.data_dir={tmp_path}"]
    assert (
        command_line.outcome(gasn.train, gasn.Config(), [f"--workdir={tmp_path}/run", *flags]) == 2
    )
    stderr = capsys.readouterr().err
    assert "ocr_letters.npz: is not an .npz archive" in stderr and stderr.count("\n") == 1


def test_a_missing_package_is_one_line_and_exit_2(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert command_line.outcome(gasn.train, gasn.Config(), [f"--workdir={tmp_path}/run"]) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("the digits come with scikit-learn, which is not installed; ")
    assert "gasn_jax[experiments]" in stderr and stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        (
            "--config.noise_dims=-1",
            "bad config: noise_dims: wanted different sizes >= 0, got (-1,)",
        ),
        (
            "--config.independent_generator_rate=0",
            "bad config: independent_generator_rate: wanted > 0 and within float32, got 0.0",
        ),
        (
            "--config.independent_generator_rate=1e39",
            "bad config: independent_generator_rate: wanted > 0 and within float32, got 1e+39",
        ),
        (
            "--config.noise_dims=1,1",
            "bad config: noise_dims: wanted different sizes >= 0, got (1, 1)",
        ),
        ("--config.noise_dim=1", "unknown config field 'noise_dim'; did you mean noise_dims?"),
        ("--config.data_dir=/nowhere", "data file ocr_letters/ocr_letters.npz"),
    ],
)
def test_the_study_refuses_too(tmp_path, capsys, argument, line):
    assert (
        command_line.outcome(
            gasn_words.train, gasn_words.Config(), [f"--workdir={tmp_path}/run", argument]
        )
        == 2
    )
    stderr = capsys.readouterr().err
    assert stderr.startswith(line) and stderr.count("\n") == 1


def test_every_field_has_a_comment():
    for config in (
        gasn.Config(),
        gasn_words.Config(),
        gasn_grids.Config(),
        gasn_horses.Config(),
    ):
        comments = common._comments(type(config))
        without = {field.name for field in dataclasses.fields(config)} - set(comments)
        assert without <= {"generator_rate", "discriminator_hidden"}  # Those of two share one.
