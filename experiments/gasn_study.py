"""Runs of `experiments.gasn` side by side: one table and one picture of all of them."""

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from experiments import gasn
from experiments.gasn_datasets import DATASETS
from gasn_jax.training import pictures, workdir

_SHOWN = 40


def run(arms: Mapping[str, gasn.Config], directory: str) -> gasn.Evaluation:
    """Trains (or restores) every arm in folders of its own, and writes the study's files.

    `study.csv` has a row for each arm, for its MAP assignments and for training data: mean and
    standard deviation of every statistic over the seeds, and the seconds that a training step of
    one model took. `study.png` shows samples of the first seed. The models of an arm are trained
    side by side; those with convolutions one after another, which is faster.

    Returns:
      ``{row: {statistic: [num_seeds] numbers}}``.
    """
    rows: gasn.Evaluation = {}
    panels: dict[str, np.ndarray] = {}
    for arm, config in arms.items():
        found = [
            _run_one(one, os.path.join(directory, name)) for name, one in _folders(arm, config)
        ]
        for row, suffix in (("samples", ""), ("map", ", MAP")):
            rows[arm + suffix] = _joined([evaluation[row] for evaluation, _, _ in found])
            rows[arm + suffix]["step_seconds"] = [seconds for _, seconds, _ in found]
        panels[arm] = found[0][2]
        reference = found[0][0]["train"]
    rows["training data"] = reference | {"step_seconds": [float("nan")]}
    gasn.write_table(os.path.join(directory, "study.csv"), rows)
    _save_picture(directory, next(iter(arms.values())), panels)
    return rows


def _folders(arm, config):
    name = arm.replace(",", "").replace(" ", "-")
    if config.network == "dense":
        return [(name, config)]
    return [
        (f"{name}-{i}", dataclasses.replace(config, num_seeds=1, seed=config.seed + i))
        for i in range(config.num_seeds)
    ]


def _run_one(config, folder):
    """The evaluation, the seconds of a step of one model, and samples of the first."""
    evaluation = gasn.train(config, folder)
    # The first line's steps were compiled.
    seconds = [line["step_seconds"] for line in workdir.read_metrics(folder)[1:]]
    with np.load(os.path.join(folder, "samples.npz"), allow_pickle=False) as archive:
        samples = archive["samples"][0, :_SHOWN]
    return evaluation, float(np.median(seconds or [np.nan])) / config.num_seeds, samples


def _joined(evaluations):
    """The numbers of several runs, statistic by statistic."""
    return {name: sum((one[name] for one in evaluations), []) for name in evaluations[0]}


def _save_picture(directory, config, panels):
    height = DATASETS[config.dataset].height
    real = gasn.load(config)[config.held_out].states[:_SHOWN]
    panels = {"real, held out": real} | panels
    pictures.save_side_by_side(
        os.path.join(directory, "study.png"),
        {name: 1.0 - x.reshape(len(x), height, -1) for name, x in panels.items()},
        columns=5,
    )
