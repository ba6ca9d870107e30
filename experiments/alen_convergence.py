r"""How fast ALEN and DVN converge: the ALEN paper's Figures 3 and 4, on labels.

    python -m experiments.alen_convergence --workdir=DIR

trains both, over seeds, with the settings of `experiments.alen_settings`, and predicts the held-out
part every so many epochs of training (Figure 4: example F1 over epochs, of the running mean of the
parameters) and, at the end, after every step of the ascent (Figure 3: ALEN starts from its
inference network's proposals, DVN from no label). The paper: 6 steps against 18. Steps are of the
size that suited each method on validation examples, ALEN's normalised, of length 0.3, DVN's half of
the gradient, so that their number is also one of their size.

Bibtex, 5 seeds: ALEN is within half a point of its best F1 after 3.0 steps, DVN after 24.6; ALEN
has 46.2 after 10 epochs and 47.4 after 15, DVN 46.2 after 45 and 46.5 at best, after 60. Beyond the
steps that their thresholds were chosen for, 5 and 30, both fall (after 60, ALEN to 37.1 and DVN to
41.4). ALEN trains for 19.7 epochs, so its curve has three points. About 16 minutes on a CPU core.

Files: `figure3.png`, `figure4.png`, a CSV beside each, `steps.json` (the first step within half a
point of the best F1 of its curve), and a folder of each run.
"""

import dataclasses
import json
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from experiments import alen, common, structured_outputs
from gasn_jax.evaluation import overlap
from gasn_jax.training import loop, pictures, workdir
from gasn_jax.training.errors import require

METHODS = {"ALEN": "alen", "DVN": "dvn"}
# A curve has converged where it is this close to its best, in points of F1 in %.
_CLOSE = 0.5


@dataclasses.dataclass(frozen=True)
class Config:
    # Seed of every random number of the first model of each method.
    seed: int = 0
    # Training steps of every model; 0 for what its settings say.
    num_steps: int = 0
    # Steps between two checkpoints; the last step always gets one.
    checkpoint_every: int = 1000
    # bibtex or bookmarks.
    dataset: str = "bibtex"
    # Models of each method, of the seeds `seed`, `seed + 1`, ...
    num_seeds: int = 5
    # Epochs between two predictions of the held-out part.
    num_epochs: int = 5
    # Steps of the ascent in Figure 3.
    num_refinements: int = 60
    # Folder that holds the sets; empty for the environment variable GASN_DATA, then ../shared/data.
    data_dir: str = ""
    # The part that is predicted: test, or validation.
    held_out: str = "test"

    def __post_init__(self) -> None:
        require(
            self.dataset in ("bibtex", "bookmarks"), "dataset", "bibtex or bookmarks", self.dataset
        )
        for name in ("num_seeds", "num_epochs", "num_refinements"):
            require(getattr(self, name) >= 1, name, ">= 1", getattr(self, name))
        self.runs("alen", 1)

    def runs(self, method: str, num_examples: int) -> list[alen.Config]:
        """The config of each model of a method, trained on so many examples."""
        names = ("dataset", "data_dir", "held_out", "checkpoint_every")
        shared = {name: getattr(self, name) for name in names}
        if self.num_steps:
            shared["num_steps"] = self.num_steps
        one = alen.settled(method=method, **shared)
        every = max(1, self.num_epochs * num_examples // one.batch_size)
        seeds = range(self.seed, self.seed + self.num_seeds)
        return [dataclasses.replace(one, seed=seed, log_every=every) for seed in seeds]


def train(config: Config, directory: str) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Trains (or restores) the models and draws both figures.

    Returns:
      For each method and seed, the held-out F1 in % after each step of the ascent and after each
      `num_epochs` epochs.
    """
    fit, held_out = structured_outputs.load(config.dataset, config.data_dir, config.held_out)
    curves = {}
    for name, method in METHODS.items():
        curves[name] = [
            _run_one(config, one, os.path.join(directory, f"{method}-{one.seed}"), fit, held_out)
            for one in config.runs(method, len(fit.x))
        ]
    _save(config, directory, curves)
    return curves


def _run_one(study, config, directory, fit, held_out):
    x, y = jnp.asarray(held_out.x), jnp.asarray(held_out.y)

    def score(state):
        predicted = alen.predictor(config)(state, x).trajectory[:, -1] > config.threshold
        return jnp.mean(jax.vmap(overlap.f1)(predicted.astype(y.dtype), y))

    def step_fn(state, batch, key):
        inner, metrics = alen.train_step(config, state["run"], batch, key)
        number = state["number"] + 1
        due = number % config.log_every == 0
        metrics["f1"] = jax.lax.cond(due, score, lambda _: jnp.zeros(()), inner)
        return {"run": inner, "number": number}, metrics

    state = loop.train(
        config,
        directory,
        init_fn=lambda key: {"run": alen.init(config, key), "number": jnp.int32(0)},
        step_fn=step_fn,
        batch_fn=lambda data, key: alen.batch(config, data, key),
        data=fit,
    )
    config = dataclasses.replace(config, num_refinements=study.num_refinements)
    found = alen.predict(config, state["run"], held_out.x)
    steps = alen.refinement(config, found, held_out)["example F1"]
    lines = [
        line for line in workdir.read_metrics(directory) if not line["step"] % config.log_every
    ]
    return steps, 100 * np.array([line["f1"] for line in lines])


def _save(config, directory, curves):
    first: dict[str, Any] = {}
    for name, ones in curves.items():
        found = [int(np.argmax(steps >= steps.max() - _CLOSE)) for steps, _ in ones]
        first[name] = {"steps": found, "mean": float(np.mean(found))}
        logging.info("%s: within %s points of its best F1 after %s steps", name, _CLOSE, found)
    with open(os.path.join(directory, "steps.json"), "w", encoding="utf-8") as file:
        json.dump(first, file, indent=1)
    for figure, which, xlabel in ((3, 0, "step of the ascent"), (4, 1, "epoch")):
        bands = {name: pictures.band([one[which] for one in ones]) for name, ones in curves.items()}
        length = max(len(band[0]) for band in bands.values())
        first_x, unit = (0, 1) if figure == 3 else (1, config.num_epochs)
        if length:
            pictures.save_curves(
                os.path.join(directory, f"figure{figure}.png"),
                unit * np.arange(first_x, first_x + length),
                {name: _padded(band, length) for name, band in bands.items()},
                xlabel=xlabel,
                ylabel="example F1, %",
            )


def _padded(band, length):
    """Methods train for numbers of steps of their own: NaN after the last."""
    mean, low, high = (np.append(part, np.full(length - len(part), np.nan)) for part in band)
    return mean, low, high


if __name__ == "__main__":
    common.run(train, Config())
