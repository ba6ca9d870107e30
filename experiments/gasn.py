"""A GASN learns handwritten digits (or words): samples beside real ones, and how far off they are.

    python -m experiments.gasn --workdir=DIR

trains on scikit-learn's 8x8 digits, binarised, a chain of 64 pixels in snake order, and compares
samples with 300 digits that it never saw. The paper has no such experiment. Mean and standard
deviation over 5 seeds (`--config.num_seeds=5`, and the second row with `--config.pairwise=false`),
1000 samples each; last the same numbers for 1000 training digits, the floor:

|                     | pixel means   | covariance    | MMD             | nearest | copies        |
|---------------------|---------------|---------------|-----------------|---------|---------------|
| structured          | 0.0177±0.0020 | 0.0054±0.0001 | 0.0002±0.0004   | 4.4     | 0.010±0.003   |
| independent given z | 0.0187±0.0012 | 0.0055±0.0001 | 0.0005±0.0004   | 4.7     | 0.007±0.003   |
| structured, MAP     | 0.0245±0.0023 | 0.0056±0.0002 | 0.0030±0.0007   | 3.1     | 0.039±0.009   |
| independent, MAP    | 0.0278±0.0011 | 0.0059±0.0002 | 0.0046±0.0004   | 3.2     | 0.032±0.007   |
| training digits     | 0.0135        | 0.0045        | -0.0006         | 3.4     | 0.043         |

`nearest` is the mean number of pixels to the nearest training digit and `copies` the share that
equal one; on the last line both are those of held-out digits. Samples lie farther from the training
digits than held-out digits do, so they are not memorised. Five settings were tried on the
validation part for each generator, 2 seeds each (R1 weights 0.3, 1 and 3, half and twice the
rates); none differed from the first by more than the seeds do, and it was kept for both. Time: 20 s
for one model on 2 CPU cores, compiling and pictures included.

With `--config.structure=tree` or `grid`, and for a grid also
`--config.inference=belief_propagation`, other pixels are neighbours; `experiments.gasn_grids`
compares them.

    python -m experiments.gasn --workdir=DIR --config.dataset=ocr_words

learns letter strings of 3 to 14 letters instead, which `experiments.gasn_words` studies, and
`--config.dataset=horses` masks of horses, which `experiments.gasn_horses` does.

    python -m experiments.gasn --workdir=DIR --mode=sample [--num_samples=100] [--sample_seed=0]

draws from a trained run: `drawn.npz` and `drawn.png` (or `drawn.txt`), as `samples` below.

Files, beside those of every run: `evaluation.json` (each number for each seed), `evaluation.csv`
(mean and standard deviation over the seeds; beside the models are the training part, and what
counting alone gives: variables drawn independently, and each after the one before it),
`samples.npz` (states [num_seeds, num_eval_samples, N] by both modes), `samples.png` or
`samples.txt`, `curves.png` and its CSV.
"""

import csv
import dataclasses
import functools
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from experiments import common
from experiments.gasn_datasets import DATASETS, Examples, counted, some_of
from gasn_jax.data import digits
from gasn_jax.learning import chow_liu
from gasn_jax.structured import engine, graph, grid
from gasn_jax.systems import gasn
from gasn_jax.training import loop, pictures, workdir
from gasn_jax.training.errors import require

# Beside the generator's rows of the table: real data, and what counting alone would give.
_REFERENCES = ("train", "independent", "first_order")


@dataclasses.dataclass(frozen=True)
class Config(loop.LoopConfig):
    num_steps: int = 3000
    checkpoint_every: int = 1000
    # What to learn: digits (8x8 pixels), horses (masks of 32x32 pixels) or ocr_words (letter
    # strings).
    dataset: str = "digits"
    # Which variables have pairwise scores. Images: chain (snake order), tree (Chow-Liu, of the
    # training part) or grid (4 neighbours); letter strings: chain.
    structure: str = "chain"
    # exact, or belief_propagation: tree-reweighted beliefs, and samples by Gibbs sweeps.
    inference: str = "exact"
    # Folder that holds ocr_letters/ and weizmann_horses/; empty for the environment variable
    # GASN_DATA, then ../shared/data. The digits come with scikit-learn.
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
    # Both players' networks: dense, or convolutional (of grids).
    network: str = "dense"
    # Widths of the hidden layers, of convolutional networks their channels.
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
    # Weight of 1/2 ||w||^2 in the discriminator's loss (the paper: 1).
    weight_decay: float = 0.0
    # Weight of the R1 penalty in the discriminator's loss.
    r1: float = 1.0
    # How inference is differentiated: product, by the full matrix jacobian (of chains: the paper's
    # Algorithm 1), or conditioning (its Equation 13). The same numbers at other costs.
    gradient: str = "product"
    # Adam's learning rates.
    discriminator_rate: float = 1e-3
    generator_rate: float = 1e-3
    # Decay per step of the running mean of the generator's parameters that samples come from.
    average_decay: float = 0.998

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (
            ("dataset", tuple(DATASETS)),
            ("held_out", ("validation", "test")),
            ("structure", ("chain", "tree", "grid")),
            ("inference", ("exact", "belief_propagation")),
        ):
            value = getattr(self, name)
            require(value in allowed, name, f"one of {', '.join(allowed)}", value)
        if not DATASETS[self.dataset].height:
            for name, only in (("structure", "chain"), ("inference", "exact")):
                value = getattr(self, name)
                require(value == only, name, f"{only} for {self.dataset}", value)
        if self.structure != "grid":
            require(
                self.network == "dense", "network", f"dense for a {self.structure}", self.network
            )
        elif self.inference == "exact":
            dataset = DATASETS[self.dataset]
            fits = dataset.num_states**dataset.height <= grid.MOST_STATES
            require(fits, "inference", "belief_propagation for so large a grid", self.inference)
        for name, least in (("num_seeds", 1), ("batch_size", 1), ("num_eval_samples", 2)):
            require(getattr(self, name) >= least, name, f">= {least}", getattr(self, name))
        self.system()

    def system(self, train_part: Examples | None = None) -> gasn.GASNConfig:
        """Returns the system's config; its ValueError names the field that is out of range.

        A tree is that of the training part; without it, any.
        """
        names = {field.name for field in dataclasses.fields(gasn.GASNConfig)}
        ours = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        dataset = DATASETS[self.dataset]
        return gasn.GASNConfig(
            **{name: value for name, value in ours.items() if name in names},
            engine=self._engine(train_part),
            variable_length=not dataset.height,
            height=dataset.height,
            noise="normal",
            activation="leaky_relu",
            output_scale=self.temperature,
            optimizer="adam",
        )

    def _engine(self, train_part: Examples | None) -> engine.Engine:
        dataset = DATASETS[self.dataset]
        sizes = dataset.num_variables, dataset.num_states
        exact = self.inference == "exact"
        if self.structure == "chain":
            return engine.Chain(*sizes) if exact else engine.Loopy(graph.chain(*sizes))
        if self.structure == "tree":
            parents = np.arange(-1, dataset.num_variables - 1)
            if train_part is not None:
                parents = chow_liu.parents(train_part.states, dataset.num_states)
            tree = graph.tree(dataset.num_states, parents)
            return engine.Tree(tree) if exact else engine.Loopy(tree)
        width = dataset.num_variables // dataset.height
        image = graph.grid(dataset.height, width, dataset.num_states)
        return engine.Grid(image, dataset.height) if exact else engine.Loopy(image)

    def order(self) -> np.ndarray:
        """Where in an example each variable stands, [N]; a chain of pixels winds like a snake."""
        dataset = DATASETS[self.dataset]
        if self.structure != "chain" or not dataset.height:
            return np.arange(dataset.num_variables)
        return digits.snake_order(dataset.height, dataset.num_variables // dataset.height)


class Drawn(NamedTuple):
    """States [num_seeds, M, N], lengths [M], and which examples are reliable, [num_seeds, M]."""

    states: np.ndarray
    lengths: np.ndarray
    reliable: np.ndarray


# {row of the table: {statistic: [num_seeds] numbers}}
Evaluation = dict[str, dict[str, list[float]]]


def train(config: Config, directory: str) -> Evaluation:
    """Trains (or restores) the models, writes all files, and returns the table's numbers."""
    real = load(config)
    system = config.system(real["train"])

    def batch_fn(data, key):
        shape = (config.batch_size, config.num_seeds)
        rows = jax.random.randint(key, shape, 0, data.states.shape[0])
        return gasn.GASNBatch(data.states[rows], data.lengths[rows])

    def step_fn(state, batch, key):
        one = functools.partial(gasn.train_step, system)
        keys = jax.random.split(key, config.num_seeds)
        state, metrics = jax.vmap(one, in_axes=(0, 1, 0))(state, batch, keys)
        worst = {"lowest_converged": jnp.min, "highest_gradient_residual": jnp.max}
        return state, {name: worst.get(name, jnp.mean)(x) for name, x in metrics.items()}

    state = loop.train(
        config,
        directory,
        init_fn=functools.partial(_init, system, config.num_seeds),
        step_fn=step_fn,
        batch_fn=batch_fn,
        data=real["train"]._replace(states=real["train"].states[:, config.order()]),
        steps_per_call=loop.steps_per_call(convolutions=config.network == "convolutional"),
    )
    drawn = draw(config, state.average, real["train"], config.num_eval_samples, config.seed)
    evaluation = evaluate(config, real, drawn)
    with open(os.path.join(directory, "evaluation.json"), "w", encoding="utf-8") as file:
        json.dump(evaluation, file, indent=1)
    write_table(os.path.join(directory, "evaluation.csv"), evaluation)
    _save_drawn(config, os.path.join(directory, "samples"), real, drawn)
    _save_curves(directory)
    return evaluation


def sample(config: Config, directory: str, num_samples: int, sample_seed: int) -> dict[str, Drawn]:
    """Draws from the trained models in a directory; writes `drawn.npz` and `drawn.png` or `.txt`.

    Reads the data set, whose training part has the lengths, and the tree if there is one.
    """
    real = load(config)
    init_fn = functools.partial(_init, config.system(real["train"]), config.num_seeds)
    state = loop.restore(config, directory, init_fn=init_fn)
    drawn = draw(config, state.average, real["train"], num_samples, sample_seed)
    _save_drawn(config, os.path.join(directory, "drawn"), real, drawn)
    return drawn


def load(config: Config) -> dict[str, Examples]:
    """The parts train, validation and test of the config's dataset."""
    return DATASETS[config.dataset].load(config.data_dir)


def draw(
    config: Config, params, train_part: Examples, num_samples: int, seed: int
) -> dict[str, Drawn]:
    """Draws from every model, states [num_seeds, num_samples, N], in both modes.

    Lengths are those of as many training examples, for the generator does not model them.
    """
    system = config.system(train_part)
    lengths = np.resize(some_of(train_part, num_samples).lengths, num_samples)
    keys = jax.random.split(jax.random.key(seed), config.num_seeds)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, None))
    def both(params, key, lengths):
        return {
            "samples": gasn.sample(system, params, key, lengths),
            "map": gasn.sample(system, params, key, lengths, mode="map"),
        }

    drawn = jax.device_get(both(params, keys, lengths))
    back = digits.inverse_order(config.order())
    return {
        name: Drawn(drawn[name].states[..., back], lengths, drawn[name].reliable)
        for name in ("samples", "map")
    }


def evaluate(
    config: Config, real: Mapping[str, Examples], drawn: Mapping[str, Drawn]
) -> Evaluation:
    """Compares the models' draws, and the reference rows, with the held-out part.

    `reliable` is the share of samples whose beliefs converged, and of MAP assignments that a bound
    certifies; 1 where inference is exact, and of the reference rows.
    """
    rows = dict(drawn)
    some = some_of(real["train"], config.num_eval_samples)
    rng = np.random.RandomState(config.seed)
    references = (some, counted(rng, some, order=0), counted(rng, some, order=1))
    for name, examples in zip(_REFERENCES, references, strict=True):
        rows[name] = Drawn(examples.states[None], examples.lengths, np.ones((1, 1), bool))
    compare = DATASETS[config.dataset].compare(real, config.held_out)
    evaluation = {}
    for name, found in rows.items():
        numbers = [compare(Examples(one, found.lengths), name == "train") for one in found.states]
        evaluation[name] = {key: [float(row[key]) for row in numbers] for key in numbers[0]}
        evaluation[name]["reliable"] = [float(share) for share in found.reliable.mean(axis=1)]
    return evaluation


def write_table(path: str, evaluation: Evaluation) -> None:
    """Writes and logs mean and standard deviation of every statistic, a row each."""
    names = list(next(iter(evaluation.values())))
    header = ["row", *(f"{name} {kind}" for name in names for kind in ("mean", "sd"))]
    with open(path, "w", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row, numbers in evaluation.items():
            cells = (kind(numbers[name]) for name in names for kind in (np.mean, spread))
            writer.writerow([row, *(f"{cell:.6g}" for cell in cells)])
    width = max(map(len, evaluation)) + 2
    logging.info("%s%s", " " * width, "".join(f"{name:>18}" for name in names))
    for row, numbers in evaluation.items():
        cells = (_shown(numbers[name]) for name in names)
        logging.info("%s%s", row.ljust(width), "".join(f"{cell:>18}" for cell in cells))


def _shown(values):
    mean = f"{np.mean(values):.4f}"
    return f"{mean} ± {spread(values):.4f}" if len(values) > 1 else mean


def spread(values) -> float:
    """The sample standard deviation; 0 for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _init(system, num_seeds, key):
    return jax.vmap(functools.partial(gasn.init, system))(jax.random.split(key, num_seeds))


def _save_drawn(config, stem, real, drawn):
    arrays: dict[str, Any] = {name: x.states.astype(np.int8) for name, x in drawn.items()}
    np.savez_compressed(f"{stem}.npz", **arrays)
    first = {name: found.states[0] for name, found in drawn.items()}
    path = DATASETS[config.dataset].save_samples(stem, real[config.held_out], first)
    logging.info("wrote %s and %s.npz", path, stem)


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


MODES = {
    "sample": common.Mode(
        sample, {"num_samples": 100, "sample_seed": 0}, "Draws from the run's models."
    )
}

if __name__ == "__main__":
    common.run(train, Config(), MODES)
