"""Does joint inference over a word's letters help a GAN, and does noise make up for its absence?

    python -m experiments.gasn_words --workdir=DIR

The paper claims that a structured generator makes more realistic samples, and does not measure it.
Here both generators, with pairwise scores and without, learn letter strings of 3 to 14 letters (55
different words, each written about 100 times), at five sizes of the noise vector. Mean and standard
deviation over 5 seeds of 1000 samples each, against the test fold; "MAP" is the generator of
Equation 2, samples are drawn at temperature 1:

|                          | noise 0     | 1           | 2           | 8           | 32          |
|--------------------------|-------------|-------------|-------------|-------------|-------------|
| bigram error, structured | 0.391±0.014 | 0.225±0.013 | 0.172±0.018 | 0.139±0.017 | 0.148±0.009 |
| independent letters      | 0.429±0.013 | 0.334±0.015 | 0.332±0.023 | 0.369±0.015 | 0.376±0.017 |
| unseen bigram, struct.   | 0.832±0.020 | 0.458±0.074 | 0.273±0.036 | 0.169±0.030 | 0.206±0.027 |
| independent letters      | 0.868±0.009 | 0.737±0.023 | 0.740±0.040 | 0.793±0.024 | 0.797±0.027 |
| letter error, structured | 0.531±0.066 | 0.438±0.045 | 0.322±0.017 | 0.246±0.027 | 0.271±0.015 |
| independent letters      | 0.525±0.030 | 0.417±0.022 | 0.408±0.027 | 0.394±0.016 | 0.413±0.019 |
| real words, structured   | 0.021±0.005 | 0.331±0.069 | 0.511±0.036 | 0.658±0.047 | 0.584±0.024 |
| independent letters      | 0.012±0.003 | 0.100±0.018 | 0.108±0.028 | 0.074±0.012 | 0.065±0.018 |
| MAP real words, struct.  | 0.661±0.112 | 0.732±0.091 | 0.813±0.027 | 0.870±0.019 | 0.804±0.019 |
| MAP, independent letters | 0.426±0.125 | 0.615±0.027 | 0.587±0.050 | 0.473±0.046 | 0.401±0.054 |

For reference, of 1000 training words: 0.101, 0, 0.131, 1. Of letters drawn by counting from their
own frequencies at each position: 0.432, 0.902, 0.151, 0.008; from those after the letter before:
0.122, 0, 0.155, 0.627. So from noise dimension 2 on pairwise scores help in every number (at 1 in
all but the letter error), and more noise does not make up for their absence. Without noise they
help little, and the letter error of both is far from what counting reaches with the same freedom:
there the game falls short, not the model. (Without noise, MAP has one string per length.)

Every setting is the same for both generators; of three (Adam's rates and R1 weight 2e-3 and 1, 3e-3
and 0.3, 3e-3 and 3) the one that was best on the validation fold at noise 8 was kept; the third was
tried on the independent generator alone. Runs are short: 1500 steps. Time: about 25 minutes of one
CPU core's work. Runs stand in folders of their own, so the same command resumes, and runs with
other noise dimensions can be added.
"""

import csv
import dataclasses
import os

import numpy as np
from absl import logging

from experiments import common, gasn
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
            require(getattr(self, name) > 0, name, "> 0", getattr(self, name))
        for noise_dim in dims:
            self.of_run(noise_dim, pairwise=True)

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
