"""A GASN learns handwritten digits (or words): samples beside real ones, and how far off they are.

    python -m experiments.gasn --workdir=DIR

trains on scikit-learn's 8x8 digits, binarised, a chain of 64 pixels in snake order, and compares
samples with 300 digits that it never saw. The paper has no such experiment. Mean and standard
deviation over 5 seeds (`--config.num_seeds=5`, and the second row with `--config.pairwise=false`),
1000 samples each; last the same numbers for 1000 training digits, the floor:

|                     | pixel means   | covariance    | MMD             | nearest | copies        |
|---------------------|---------------|---------------|-----------------|---------|---------------|
| structured          | 0.0169±0.0016 | 0.0053±0.0002 | 0.0002±0.0004   | 4.4     | 0.010±0.003   |
| independent given z | 0.0187±0.0023 | 0.0055±0.0001 | 0.0005±0.0006   | 4.7     | 0.006±0.000   |
| structured, MAP     | 0.0228±0.0024 | 0.0054±0.0002 | 0.0027±0.0008   | 3.2     | 0.037±0.005   |
| independent, MAP    | 0.0281±0.0019 | 0.0059±0.0001 | 0.0047±0.0007   | 3.2     | 0.032±0.007   |
| training digits     | 0.0135        | 0.0045        | -0.0006         | 3.4     | 0.043         |

`nearest` is the mean number of pixels to the nearest training digit and `copies` the share that
equal one; on the last line both are those of held-out digits. Samples lie farther from the training
digits than held-out digits do, so they are not memorised. Five settings were tried on the
validation part for each generator, 2 seeds each (R1 weights 0.3, 1 and 3, half and twice the
rates); none differed from the first by more than the seeds do, and it was kept for both. Time: 20 s
for one model on 2 CPU cores, compiling and pictures included.

    python -m experiments.gasn --workdir=DIR --config.dataset=ocr_words

learns letter strings of 3 to 14 letters instead; `experiments.gasn_words` studies those.

Files, beside those of every run: `evaluation.json` (each number for each seed), `evaluation.csv`
(mean and standard deviation over the seeds), `samples.png` or `samples.txt`, `curves.png` and its
CSV.
"""

import csv
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from experiments import common
from gasn_jax.data import digits, ocr_words
from gasn_jax.evaluation import samples as statistics
from gasn_jax.systems import gasn
from gasn_jax.training import loop, pictures, workdir
from gasn_jax.training.errors import ConfigError, require

_NUM_PIXELS = digits.HEIGHT * digits.WIDTH
_SHOWN = 64
# Beside the generator's rows of the table: real data, and what counting alone would give.
_REFERENCES = ("train", "independent", "first_order")


@dataclasses.dataclass(frozen=True)
class Config(loop.LoopConfig):
    num_steps: int = 3000
    checkpoint_every: int = 1000
    # What to learn: digits (8x8 pixels, a chain in snake order) or ocr_words (letter strings).
    dataset: str = "digits"
    # Of digits: chain (pixels in snake order), or grid (4 neighbours, pixels in rows).
    structure: str = "chain"
    # exact, or belief_propagation (of grids): convergent beliefs, and samples by Gibbs sweeps.
    inference: str = "exact"
    # Folder that holds ocr_letters/; empty for the environment variable GASN_DATA, then
    # ../shared/data. The digits come with scikit-learn.
    data_dir: str = ""
    # The part that samples are compared with: test, or validation, on which settings were chosen.
    held_out: str = "test"
    # Models that are trained side by side from different random numbers.
    num_seeds: int = 1
    # Real examples, and as many generated ones, in each step.
    batch_size: int = 64
    # Examples that are drawn from each model, and from the training part, to be compared.
    num_eval_samples: int = 1000
    # False: the same networks without pairwise scores, so that outputs are independent given z.
    pairwise: bool = True
    # Size of the noise vector z, standard normal.
    noise_dim: int = 32
    # Widths of the hidden layers.
    generator_hidden: tuple[int, ...] = (128, 128)
    discriminator_hidden: tuple[int, ...] = (256, 128)
    # Neighbours that the discriminator's shared window sees together; 1 for none.
    window: int = 1
    # The paper's epsilon of the smoothed generator.
    temperature: float = 1.0
    # What the discriminator sees: straight_through (samples), or marginals (the paper).
    discriminator_input: str = "straight_through"
    # The generator's loss: non_saturating, or saturating (the paper).
    loss: str = "non_saturating"
    # Weight of the R1 penalty in the discriminator's loss.
    r1: float = 1.0
    # Adam's learning rates.
    discriminator_rate: float = 1e-3
    generator_rate: float = 1e-3
    # Decay per step of the running mean of the generator's parameters that samples come from.
    average_decay: float = 0.998

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (
            ("dataset", tuple(_DATASETS)),
            ("held_out", ("validation", "test")),
        ):
            value = getattr(self, name)
            require(value in allowed, name, f"one of {', '.join(allowed)}", value)
        fits = self.structure == "chain" or self.dataset == "digits"
        require(fits, "structure", f"chain for {self.dataset}", self.structure)
        for name, least in (("num_seeds", 1), ("batch_size", 1), ("num_eval_samples", 2)):
            require(getattr(self, name) >= least, name, f">= {least}", getattr(self, name))
        self.system()

    def system(self) -> gasn.GASNConfig:
        """Returns the system's config; its ValueError names the field that is out of range."""
        names = {field.name for field in dataclasses.fields(gasn.GASNConfig)}
        ours = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return gasn.GASNConfig(
            **{name: value for name, value in ours.items() if name in names},
            **_DATASETS[self.dataset].system,
            height=digits.HEIGHT if self.structure == "grid" else 0,
            noise="normal",
            activation="leaky_relu",
            output_scale=self.temperature,
            weight_decay=0.0,
            optimizer="adam",
        )


class Examples(NamedTuple):
    """States [M, N], -1 beyond the length, and lengths [M]."""

    states: np.ndarray
    lengths: np.ndarray


# {row of the table: {statistic: [num_seeds] numbers}}
Evaluation = dict[str, dict[str, list[float]]]


def train(config: Config, directory: str) -> Evaluation:
    """Trains (or restores) the models, writes all files, and returns the table's numbers."""
    real = load(config)
    if config.num_eval_samples > len(real["train"].states):
        raise ConfigError(
            f"num_eval_samples: wanted at most {len(real['train'].states)}, the training part, "
            f"got {config.num_eval_samples}"
        )
    system = config.system()

    def init_fn(key):
        keys = jax.random.split(key, config.num_seeds)
        return jax.vmap(functools.partial(gasn.init, system))(keys)

    def batch_fn(data, key):
        shape = (config.batch_size, config.num_seeds)
        rows = jax.random.randint(key, shape, 0, data.states.shape[0])
        return gasn.GASNBatch(data.states[rows], data.lengths[rows])

    def step_fn(state, batch, key):
        one = functools.partial(gasn.train_step, system)
        keys = jax.random.split(key, config.num_seeds)
        state, metrics = jax.vmap(one, in_axes=(0, 1, 0))(state, batch, keys)
        return state, jax.tree.map(jnp.mean, metrics)

    state = loop.train(
        config,
        directory,
        init_fn=init_fn,
        step_fn=step_fn,
        batch_fn=batch_fn,
        data=real["train"],
    )
    drawn = draw(config, state.average, real["train"])
    evaluation = evaluate(config, real, drawn)
    _write_table(directory, evaluation)
    _DATASETS[config.dataset].save_samples(config, directory, real[config.held_out], drawn)
    _save_curves(directory)
    return evaluation


def load(config: Config) -> dict[str, Examples]:
    """The parts train, validation and test of the config's dataset."""
    return _DATASETS[config.dataset].load(config)


def draw(config: Config, params, train_part: Examples) -> dict[str, Examples]:
    """Draws from every model, states [num_seeds, num_eval_samples, N], in both modes.

    Lengths are those of as many training examples, for the generator does not model them.
    """
    lengths = _some_of(train_part, config.num_eval_samples).lengths
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, None))
    def both(params, key, lengths):
        system = config.system()
        return {
            "samples": gasn.sample(system, params, key, lengths),
            "map": gasn.sample(system, params, key, lengths, mode="map"),
        }

    drawn = jax.device_get(both(params, keys, lengths))
    return {name: Examples(drawn[name], lengths) for name in ("samples", "map")}


def evaluate(
    config: Config, real: Mapping[str, Examples], drawn: Mapping[str, Examples]
) -> Evaluation:
    """Compares the models' draws, and the reference rows, with the held-out part."""
    rows = {name: (examples.states, examples.lengths) for name, examples in drawn.items()}
    some = _some_of(real["train"], config.num_eval_samples)
    rng = np.random.RandomState(config.seed)
    references = (some, _counted(rng, some, order=0), _counted(rng, some, order=1))
    for name, examples in zip(_REFERENCES, references, strict=True):
        rows[name] = (examples.states[None], examples.lengths)
    compare = _DATASETS[config.dataset].compare(real, config.held_out)
    evaluation = {}
    for name, (states, lengths) in rows.items():
        numbers = [compare(Examples(one, lengths), name == "train") for one in states]
        evaluation[name] = {key: [float(row[key]) for row in numbers] for key in numbers[0]}
    return evaluation


@jax.jit
def _digit_statistics(states, reference):
    return {
        "mean_error": statistics.mean_error(states, reference),
        "covariance_error": statistics.covariance_error(states, reference),
        "mmd": statistics.hamming_mmd(states, reference),
    }


def _compare_digits(real: Mapping[str, Examples], held_out: str) -> Callable:
    train_states, reference = real["train"].states, real[held_out].states

    def compare(examples: Examples, is_train: bool) -> dict[str, float]:
        # Of training data itself there is nothing to say, so the held-out part stands there.
        distances = _hamming(reference if is_train else examples.states, train_states).min(1)
        nearest = {"nearest_train": distances.mean(), "copies": np.mean(distances == 0)}
        return jax.device_get(_digit_statistics(examples.states, reference)) | nearest

    return compare


@jax.jit
def _word_statistics(examples, reference, train_part):
    both, options = (*examples, *reference), dict(num_states=ocr_words.NUM_LETTERS)
    seen = statistics.seen_bigrams(*train_part, **options)
    return {
        "bigram_error": statistics.bigram_error(*both, **options),
        "unseen_bigrams": statistics.unseen_bigram_rate(examples.states, examples.lengths, seen),
        "position_error": statistics.length_unigram_error(*both, **options),
    }


def _compare_words(real: Mapping[str, Examples], held_out: str) -> Callable:
    vocabulary = {row.tobytes() for row in real["train"].states}

    def compare(examples: Examples, is_train: bool) -> dict[str, float]:
        del is_train
        words = [row.tobytes() for row in np.asarray(examples.states, np.int32)]
        known = [word for word in words if word in vocabulary]
        shares = {"words": len(known) / len(words), "distinct_words": len(set(known))}
        numbers = _word_statistics(examples, real[held_out], real["train"])
        return jax.device_get(numbers) | shares

    return compare


def _pixel_order(config: Config) -> np.ndarray:
    """Which pixel each variable is, [64]."""
    if config.structure == "grid":
        return np.arange(_NUM_PIXELS)
    return digits.snake_order(digits.HEIGHT, digits.WIDTH)


def _load_digits(config: Config) -> dict[str, Examples]:
    parts = {}
    for name, part in digits.load()._asdict().items():
        states = part.images.reshape(-1, _NUM_PIXELS)[:, _pixel_order(config)]
        parts[name] = Examples(states, np.full(len(states), _NUM_PIXELS, np.int32))
    return parts


def _load_words(config: Config) -> dict[str, Examples]:
    splits = ocr_words.split_by_fold(ocr_words.load(config.data_dir or None))
    return {name: Examples(part.states, part.lengths) for name, part in splits._asdict().items()}


def _some_of(examples: Examples, count: int) -> Examples:
    chosen = np.random.RandomState(0).permutation(len(examples.states))[:count]
    return Examples(examples.states[chosen], examples.lengths[chosen])


def _counted(rng: np.random.RandomState, examples: Examples, order: int) -> Examples:
    """Examples of a model by counting, among those of each length.

    With order 0 every position is drawn from its own frequencies, with order 1 from those that
    follow the state before it: the best that a generator can do without any noise vector, without
    and with pairwise scores.
    """
    states = examples.states.copy()
    for length in np.unique(examples.lengths):
        rows = np.flatnonzero(examples.lengths == length)
        source = examples.states[rows]
        for position in range(length):
            group = np.zeros(len(rows), int)
            donor_group = np.zeros(len(rows), int)
            if order and position:
                group, donor_group = states[rows, position - 1], source[:, position - 1]
            for state in np.unique(group):
                takers = rows[group == state]
                donors = source[donor_group == state, position]
                states[takers, position] = rng.choice(donors, len(takers))
    return Examples(states, examples.lengths)


def _hamming(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Numbers of positions [M, K] in which binary rows differ."""
    left, right = left.astype(np.float32), right.astype(np.float32)
    return left @ (1 - right).T + (1 - left) @ right.T


def _write_table(directory: str, evaluation: Evaluation) -> None:
    with open(os.path.join(directory, "evaluation.json"), "w", encoding="utf-8") as file:
        json.dump(evaluation, file, indent=1)
    names = list(next(iter(evaluation.values())))
    header = ["row", *(f"{name} {kind}" for name in names for kind in ("mean", "sd"))]
    with open(os.path.join(directory, "evaluation.csv"), "w", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row, numbers in evaluation.items():
            cells = (kind(numbers[name]) for name in names for kind in (np.mean, spread))
            writer.writerow([row, *(f"{cell:.6g}" for cell in cells)])
    logging.info("%-12s%s", "", "".join(f"{name:>18}" for name in names))
    for row, numbers in evaluation.items():
        cells = (f"{np.mean(numbers[name]):.4f} ± {spread(numbers[name]):.4f}" for name in names)
        logging.info("%-12s%s", row, "".join(f"{cell:>18}" for cell in cells))


def spread(values) -> float:
    """The sample standard deviation; 0 for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _save_digits(
    config: Config, directory: str, held_out: Examples, drawn: Mapping[str, Examples]
) -> None:
    shown = {
        "real, held out": held_out.states,
        "samples": drawn["samples"].states[0],
        "MAP": drawn["map"].states[0],
    }
    back = digits.inverse_order(_pixel_order(config))
    pictures.save_side_by_side(
        os.path.join(directory, "samples.png"),
        {
            name: states[:_SHOWN, back].reshape(-1, digits.HEIGHT, digits.WIDTH)
            for name, states in shown.items()
        },
    )


def _save_words(
    config: Config, directory: str, held_out: Examples, drawn: Mapping[str, Examples]
) -> None:
    del config
    columns = (held_out.states, drawn["samples"].states[0], drawn["map"].states[0])
    lines = ["".join(f"{title:<16}" for title in ("real, held out", "samples", "MAP"))]
    for words in zip(*(states[:_SHOWN] for states in columns), strict=False):
        lines.append("".join(f"{_spell(word):<16}" for word in words))
    with open(os.path.join(directory, "samples.txt"), "w", encoding="utf-8") as file:
        file.write("\n".join(line.rstrip() for line in lines) + "\n")


def _spell(states: np.ndarray) -> str:
    return "".join(chr(ord("a") + state) for state in states if state != ocr_words.PADDING)


def _save_curves(directory: str) -> None:
    lines = workdir.read_metrics(directory)
    if lines:
        names = {"real": "real_probability", "generated": "fake_probability"}
        pictures.save_curves(
            os.path.join(directory, "curves.png"),
            np.array([line["step"] for line in lines]),
            {label: np.array([line[name] for line in lines]) for label, name in names.items()},
            xlabel="step",
            ylabel="mean D(x)",
            title="What the discriminator thinks",
        )


class _Dataset(NamedTuple):
    system: dict[str, Any]  # fields of GASNConfig that the data fix
    load: Callable[[Config], dict[str, Examples]]
    compare: Callable[[Mapping[str, Examples], str], Callable]
    save_samples: Callable[[Config, str, Examples, Mapping[str, Examples]], None]


_DATASETS = {
    "digits": _Dataset(
        {"num_variables": _NUM_PIXELS, "num_states": 2},
        _load_digits,
        _compare_digits,
        _save_digits,
    ),
    "ocr_words": _Dataset(
        {
            "num_variables": ocr_words.MAX_LENGTH,
            "num_states": ocr_words.NUM_LETTERS,
            "variable_length": True,
        },
        _load_words,
        _compare_words,
        _save_words,
    ),
}


if __name__ == "__main__":
    common.run(train, Config())
