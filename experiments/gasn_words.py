"""Does joint inference over a word's letters help a GAN, and does noise make up for its absence?

    python -m experiments.gasn_words --workdir=DIR

The paper claims that a structured generator makes more realistic samples, and does not measure it.
Here both generators, with pairwise scores and without, learn letter strings of 3 to 14 letters (55
different words, each written about 100 times), at five sizes of the noise vector. Mean and standard
deviation over 5 seeds of 1000 samples each, against the test fold; "MAP" is the generator of
Equation 2, samples are drawn at temperature 1:

|                          | noise 0     | 1           | 2           | 8           | 32          |
|--------------------------|-------------|-------------|-------------|-------------|-------------|
| bigram error, structured | 0.404±0.016 | 0.205±0.013 | 0.141±0.005 | 0.120±0.006 | 0.123±0.008 |
| independent letters      | 0.460±0.018 | 0.280±0.011 | 0.247±0.020 | 0.237±0.019 | 0.253±0.019 |
| unseen bigram, struct.   | 0.837±0.028 | 0.400±0.049 | 0.200±0.042 | 0.110±0.045 | 0.091±0.019 |
| independent letters      | 0.898±0.019 | 0.565±0.037 | 0.510±0.071 | 0.464±0.053 | 0.448±0.028 |
| letter error, structured | 0.537±0.049 | 0.419±0.045 | 0.312±0.025 | 0.233±0.024 | 0.200±0.011 |
| independent letters      | 0.553±0.023 | 0.429±0.020 | 0.397±0.014 | 0.380±0.030 | 0.390±0.036 |
| real words, structured   | 0.033±0.010 | 0.408±0.067 | 0.643±0.055 | 0.776±0.056 | 0.799±0.023 |
| independent letters      | 0.008±0.005 | 0.290±0.057 | 0.338±0.068 | 0.385±0.034 | 0.384±0.031 |
| MAP real words, struct.  | 0.542±0.081 | 0.699±0.067 | 0.818±0.045 | 0.896±0.029 | 0.906±0.017 |
| MAP, independent letters | 0.200±0.055 | 0.631±0.053 | 0.661±0.035 | 0.667±0.033 | 0.640±0.020 |

For reference, of 1000 training words: 0.101, 0, 0.131, 1. Of letters drawn by counting from their
own frequencies at each position: 0.432, 0.902, 0.151, 0.008; from those after the letter before:
0.122, 0, 0.155, 0.627. So with any noise pairwise scores help in every number but the letter error
at dimension 1, and more noise does not make up for their absence.

Without noise they help little, though counting shows what one chain can do. The gradient is why:
the discriminator's slope reaches the scores through the unary marginals only, averaged over the
samples, so nothing says which pairs of letters made a sample good. Noise gives the samples of each
z a chain of their own, and with it the pairwise scores something to be right about. (Without noise,
MAP has one string per length.)

Settings come from the validation fold, noise 8, 2 seeds, other random numbers, the bigram error.
With pairwise scores 15 were tried, without 20: R1 weights 0.03 to 3, Adam's rates 0.001 to 0.02,
1500 and 4000 steps. At 4000 steps those with pairwise scores differ little (0.116 to 0.146); those
without gain much from higher rates, the generator's above all (0.285 to 0.211), and got rates of
their own. Time: 20 minutes on 2 CPU cores. Runs stand in folders of their own, so the same
command resumes, and runs with other noise dimensions can be added.

Files: `figure.png` and its CSV, `study.csv` with every statistic, and the folders of the runs.
"""

import csv
import dataclasses
import itertools
import os

import numpy as np
from absl import logging

from experiments import common, gasn
from gasn_jax.checks import FLOAT32_RANGE
from gasn_jax.training import loop, pictures
from gasn_jax.training.errors import require

# Statistic -> the title of its panel.
_PANELS = {
    "bigram_error": "bigram error (total variation)",
    "unseen_bigrams": "share of samples with an unseen bigram",
    "position_error": "letter error, by length and position",
    "words": "share of samples that are real words",
}
_STATISTICS = (*_PANELS, "distinct_words")
# Arm -> whether it has pairwise scores.
_ARMS = {"structured": True, "independent": False}
# Reference row -> its label.
_REFERENCES = {
    "train": "training data",
    "first_order": "counting, first order",
    "independent": "counting, independent letters",
}


@dataclasses.dataclass(frozen=True)
class Config(loop.LoopConfig):
    # Training steps of each run; there is one run for each noise dimension, with and without
    # pairwise scores.
    num_steps: int = 4000
    checkpoint_every: int = 1000
    # Folder that holds ocr_letters/; empty for the environment variable GASN_DATA, then
    # ../shared/data.
    data_dir: str = ""
    # The part that samples are compared with: test, or validation, on which settings were chosen.
    held_out: str = "test"
    # Sizes of the noise vector z to try.
    noise_dims: tuple[int, ...] = (0, 1, 2, 8, 32)
    # Models of each run, trained side by side from different random numbers.
    num_seeds: int = 5
    # Real examples, and as many generated ones, in each step.
    batch_size: int = 32
    # Examples that are drawn from each model to be compared.
    num_eval_samples: int = 1000
    # Widths of the hidden layers.
    generator_hidden: tuple[int, ...] = (64,)
    discriminator_hidden: tuple[int, ...] = (128,)
    # Neighbours that the discriminator's shared window sees together; 1 for none.
    window: int = 3
    # Weight of the R1 penalty in the discriminator's loss.
    r1: float = 1.0
    # Adam's learning rates with pairwise scores.
    discriminator_rate: float = 3e-3
    generator_rate: float = 3e-3
    # Adam's learning rates without.
    independent_discriminator_rate: float = 6e-3
    # Likewise.
    independent_generator_rate: float = 1e-2
    # Decay per step of the running mean of the generator's parameters that samples come from.
    average_decay: float = 0.995

    def __post_init__(self) -> None:
        super().__post_init__()
        dims = self.noise_dims
        fine = bool(dims) and len(set(dims)) == len(dims) and min(dims) >= 0
        require(fine, "noise_dims", "different sizes >= 0", dims)
        for name in ("independent_discriminator_rate", "independent_generator_rate"):
            value, (tiny, huge) = getattr(self, name), FLOAT32_RANGE
            require(tiny <= value <= huge, name, "> 0 and within float32", value)
        for noise_dim, pairwise in itertools.product(dims, (True, False)):
            self.of_run(noise_dim, pairwise=pairwise)

    def of_run(self, noise_dim: int, *, pairwise: bool) -> gasn.Config:
        """Returns the config of one run; its ValueError names the field that is out of range."""
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del shared["noise_dims"]
        for name in ("discriminator_rate", "generator_rate"):
            independent = shared.pop(f"independent_{name}")
            shared[name] = shared[name] if pairwise else independent
        return gasn.Config(dataset="ocr_words", noise_dim=noise_dim, pairwise=pairwise, **shared)


def train(config: Config, directory: str) -> dict[str, dict[int, gasn.Evaluation]]:
    """Trains (or restores) every run in a folder of its own; then writes the study's files.

    Returns:
      ``{arm: {noise_dim: evaluation}}``, arms "structured" and "independent".
    """
    study: dict[str, dict[int, gasn.Evaluation]] = {arm: {} for arm in _ARMS}
    for noise_dim in config.noise_dims:
        for arm, pairwise in _ARMS.items():
            folder = os.path.join(directory, f"{arm}-{noise_dim}")
            run = config.of_run(noise_dim, pairwise=pairwise)
            study[arm][noise_dim] = gasn.train(run, folder)
    _write_table(directory, study)
    _save_figure(os.path.join(directory, "figure.png"), study)
    return study


def _write_table(directory: str, study: dict[str, dict[int, gasn.Evaluation]]) -> None:
    """Writes `study.csv`, and logs it: every statistic, and its values for reference."""
    first = next(iter(study["structured"].values()))
    rows = [
        ("", name, numbers) for name, numbers in first.items() if name not in ("samples", "map")
    ]
    for arm, runs in study.items():
        for noise_dim, evaluation in runs.items():
            rows += [(str(noise_dim), f"{arm} {n}", evaluation[n]) for n in ("samples", "map")]
    header = [f"{name} {kind}" for name in _STATISTICS for kind in ("mean", "sd")]
    with open(os.path.join(directory, "study.csv"), "w", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["noise_dim", "row", *header])
        for noise_dim, name, numbers in rows:
            cells = (kind(numbers[key]) for key in _STATISTICS for kind in (np.mean, gasn.spread))
            writer.writerow([noise_dim, name, *(f"{cell:.6g}" for cell in cells)])
    logging.info("%-9s%-20s%s", "noise_dim", " row", "".join(f"{key:>18}" for key in _STATISTICS))
    for noise_dim, name, numbers in rows:
        cells = (
            f"{np.mean(numbers[key]):.3f} ± {gasn.spread(numbers[key]):.3f}" for key in _STATISTICS
        )
        logging.info("%-9s%-20s%s", noise_dim, name, "".join(f"{cell:>18}" for cell in cells))


def _save_figure(path: str, study: dict[str, dict[int, gasn.Evaluation]]) -> None:
    """Draws mean and standard deviation over the seeds, a panel for each statistic."""
    noise_dims, references = zip(*study["structured"].items(), strict=True)
    panels: dict[str, dict[str, pictures.Curve]] = {}
    for statistic, title in _PANELS.items():
        panels[title] = {}
        for arm, runs in study.items():
            values = [evaluation["samples"][statistic] for evaluation in runs.values()]
            mean, spread = np.mean(values, 1), np.array([gasn.spread(row) for row in values])
            panels[title][f"{arm} generator"] = (mean, mean - spread, mean + spread)
        for name, label in _REFERENCES.items():
            panels[title][label] = np.array([row[name][statistic][0] for row in references])
    pictures.save_panels(path, noise_dims, panels, xlabel="noise dimension", logx=True)


if __name__ == "__main__":
    common.run(train, Config())
