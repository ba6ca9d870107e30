r"""Energy models of structured outputs: one method of the ALEN paper's tables on one data set.

    python -m experiments.alen --workdir=DIR --config.dataset=bibtex --config.method=alen

takes 15 to 60 seconds on two CPU cores and has a test example F1 of 47.81 +- 0.42, over 5 seeds.
Masks take up to 40 minutes of a core; `experiments.alen_tables` has their numbers.

Settings were chosen on the validation part (`--config.held_out=validation` trains without it and
evaluates on it); `experiments.alen_settings` lists the exceptions, and
`--config.dataset=D --config.method=M --help` shows those of a method on a data set.
`experiments.alen_tables` trains all rows of a table, over seeds.

A trained run predicts for other inputs, without its data:

    python -m experiments.alen --workdir=DIR --mode=predict --input=FILE.npz --output=FOLDER

FILE holds `features` [M, D] (labels) or `images` [M, 32, 32, 3] in bytes (segmentation). FOLDER
gets `predictions.npz`: `predicted` (0 and 1, or the class of each pixel), `trajectory` (the relaxed
outputs, from the inference network's through the refinement, [M, T+1, ...]) and `values` (of the
value network, [M, T+1]); and `predictions.png`, of labels with its CSV. Of images both are means
over the crops: of their masks, and of the value of each crop's own mask. From Python:
`alen.predict_file(common.of_run(DIR, alen.Config()), DIR, FILE, FOLDER)`.

Files: `evaluation.json`, `refinement.png` (scores after each step of the ascent, held out) with its
CSV, and of images `examples.png`.
"""

import functools
import itertools
import json
import math
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from experiments import common, energy_methods, structured_outputs
from experiments.alen_config import Config, settled
from gasn_jax.checks import fits_memory
from gasn_jax.data import archive, locate
from gasn_jax.evaluation import overlap
from gasn_jax.training import loop, pictures
from gasn_jax.training.errors import ConfigError, require

# Inputs that are predicted at a time: as many labels', and as few images', as are fastest.
_CHUNK, _IMAGE_CHUNK = 256, 16
_SHOWN, _CURVES = 16, 8
_CHOICE = re.compile(r"--?config\.(dataset|method)[= ](\S*)")


class Predicted(NamedTuple):
    """Of M inputs: relaxed outputs [M, T+1, ...] along the ascent, and their values [M, T+1].

    Of images both are means over views.
    """

    trajectory: np.ndarray
    values: np.ndarray


def train(config: Config, directory: str) -> dict[str, Any]:
    """Trains (or restores) the method, evaluates it and writes the files.

    Returns:
      What `evaluation.json` holds: scores in % of `refined` and of `network` outputs.
    """
    fit, held_out = structured_outputs.load(config.dataset, config.data_dir, config.held_out)
    _check_memory(config, len(held_out.x))
    state = loop.train(
        config,
        directory,
        init_fn=lambda key: init(config, key),
        step_fn=lambda state, batch, key: train_step(config, state, batch, key),
        batch_fn=lambda data, key: batch(config, data, key),
        data=fit,
        steps_per_call=loop.steps_per_call(convolutions=config.data.are_images),
    )
    found = predict(config, state, held_out.x)
    evaluation = evaluate(config, found, held_out)
    with open(os.path.join(directory, "evaluation.json"), "w", encoding="utf-8") as file:
        json.dump(evaluation, file, indent=1)
    for name in ("network", "refined"):
        logging.info("%s: %s", name, {k: round(x, 2) for k, x in evaluation[name].items()})
    _save_pictures(config, directory, found, held_out)
    return evaluation


def init(config: Config, key: jax.Array) -> dict[str, Any]:
    """A fresh state: the system's, and the running mean of its networks' variables."""
    x, y = jnp.zeros(config.data.x_shape), jnp.zeros(config.data.y_shape)
    system = energy_methods.learner(config).init(key, x, y)
    return {"system": system, "average": jax.tree.map(jnp.copy, _networks(system))}


def batch(config: Config, data: structured_outputs.Examples, key: jax.Array):
    """Random examples, moved at random where the data set knows how."""
    rows_key, key = jax.random.split(key)
    rows = jax.random.randint(rows_key, (config.batch_size,), 0, data.x.shape[0])
    x, y = data.x[rows], data.y[rows]
    if config.data.augment is not None:
        augment = functools.partial(config.data.augment, side=config.crop)
        x, y = jax.vmap(augment)(jax.random.split(key, config.batch_size), x, y)
    return structured_outputs.Examples(x, y)


def train_step(config: Config, state: Any, batch: structured_outputs.Examples, key: jax.Array):
    """One step; the state after it, and metrics."""
    system, metrics = energy_methods.learner(config).step(state["system"], batch.x, batch.y, key)
    step_size = 1 - config.average_decay
    average = optax.incremental_update(_networks(system), state["average"], step_size)
    return {"system": system, "average": average}, metrics


def predictor(config: Config) -> Callable[[Any, jax.Array], energy_methods.Found]:
    """A pure function of a state and inputs [M, ...], of images in one view."""
    learner = energy_methods.learner(config)

    def predict(state, x):
        averaged = state["system"]._replace(**state["average"])
        return jax.vmap(lambda one: learner.predict(averaged, one, config.num_refinements))(x)

    return predict


def predict(config: Config, state: Any, x: np.ndarray) -> Predicted:
    """Of M >= 1 inputs [M, ...], by the state that :func:`train` trained; of images by views.

    ValueError for none, or too many, or for those of another shape than the data set's.
    """
    if not len(x) or x.shape[1:] != config.data.x_shape:
        wanted = ", ".join(map(str, config.data.x_shape))
        raise ValueError(f"x must have shape [M, {wanted}], M >= 1, got {list(x.shape)}")
    _check_memory(config, len(x))
    compiled = jax.jit(predictor(config))
    views = _views(config)

    def of_part(x):
        if not config.data.are_images:
            return compiled(state, jnp.asarray(x))
        found = [compiled(state, jnp.asarray(view.of(x, axis=1))) for view in views]
        masks = [np.asarray(one.trajectory) for one in found]
        values = [np.asarray(one.values) for one in found]
        return Predicted(structured_outputs.joined(masks, views, axis=2), np.mean(values, axis=0))

    size = min(len(x), _IMAGE_CHUNK if config.data.are_images else _CHUNK)
    starts = range(0, len(x), size)
    # the last part is filled up, so that one compiled program predicts all
    filled = x[np.arange(len(starts) * size) % len(x)]
    parts = []
    for i in starts:
        parts.append(of_part(filled[i : i + size]))
        logging.log_every_n_seconds(logging.INFO, "predicted %d of %d", 30, i + size, len(x))
    return Predicted(*(np.concatenate(leaves)[: len(x)] for leaves in zip(*parts, strict=True)))


def _views(config):
    """The squares of an image whose masks are averaged."""
    return structured_outputs.views(
        side=config.crop, step=config.crop_step, mirrored=config.mirrored
    )


def _check_memory(config, num_inputs):
    """Of trajectories before they are computed: in parts and joined, and of all views of a part."""
    numbers = 2 * num_inputs * math.prod(config.data.y_shape)
    if config.data.are_images:
        count = len(_views(config)) * min(num_inputs, _IMAGE_CHUNK)
        numbers += count * config.crop**2 * (config.data.num_classes or 1)
    fits_memory("num_refinements", 4 * numbers * (config.num_refinements + 1), ConfigError)


def evaluate(
    config: Config, found: Predicted, held_out: structured_outputs.Examples
) -> dict[str, Any]:
    """Scores in %, of the ascent's end and of its start, which is the network's output if any.

    On the validation part also the best threshold of either, by the first score.
    """
    ends = {"network": found.trajectory[:, 0], "refined": found.trajectory[:, -1]}
    thresholds = {"network": config.network_threshold, "refined": config.threshold}
    evaluation: dict[str, Any] = {
        name: config.data.scores(config.data.decide(y, thresholds[name]), held_out)
        for name, y in ends.items()
    }

    def first_score(predicted, true):
        del true
        return next(iter(config.data.scores(predicted, held_out).values()))

    if config.held_out == "validation" and not config.data.num_classes:
        for name, y in ends.items():
            candidates = np.linspace(0.05, 0.95, 19).round(2)
            best = overlap.best_threshold(y, held_out.y > 0.5, candidates, first_score)
            evaluation[f"best threshold of {name}"] = list(best)
    return evaluation


def refinement(
    config: Config, found: Predicted, held_out: structured_outputs.Examples
) -> dict[str, np.ndarray]:
    """Each score after every step of the ascent, [T+1]."""
    steps = found.trajectory.swapaxes(0, 1)
    rows = [config.data.scores(config.data.decide(y, config.threshold), held_out) for y in steps]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def predict_file(config: Config, directory: str, input: str, output: str) -> Predicted:
    """Predicts for the inputs of a file by the trained run in a directory; see the module."""
    x = _read_input(config, input)
    _make_folder(output)
    state = loop.restore(config, directory, init_fn=lambda key: init(config, key))
    found = predict(config, state, x)
    if not (np.all(np.isfinite(found.trajectory)) and np.all(np.isfinite(found.values))):
        raise locate.DataError(f"{input}: entries are too large: what is predicted is not finite")
    decided = config.data.decide(found.trajectory[:, -1], config.threshold)
    predicted = decided.argmax(axis=-1) if config.data.num_classes else decided
    np.savez_compressed(
        os.path.join(output, "predictions.npz"),
        predicted=predicted.astype(np.uint8),
        trajectory=found.trajectory,
        values=found.values,
    )
    path = os.path.join(output, "predictions.png")
    if config.data.are_images:
        _save_segmented(path, x[:_SHOWN], {"predicted": found.trajectory[:_SHOWN, -1]})
    else:
        pictures.save_curves(
            path,
            np.arange(found.values.shape[1]),
            {f"input {i}": values for i, values in enumerate(found.values[:_CURVES])},
            xlabel="step of the ascent",
            ylabel="value of the labels",
        )
    logging.info("wrote %s", os.path.join(output, "predictions.npz"))
    return found


def _make_folder(output):
    """Before the work is done, not after it."""
    try:
        os.makedirs(output, exist_ok=True)
        problem = None if os.access(output, os.W_OK | os.X_OK) else "permission denied"
    except OSError as error:
        problem = error.strerror
    require(problem is None, "output", "a folder to write to", f"{output} ({problem})")


def _read_input(config, path):
    """The inputs of a file, checked: [M, ...] float32."""
    name, shape = config.data.input_name, config.data.x_shape
    x = archive.read(path, [name], floating=True)[name]
    if x.ndim != 1 + len(shape) or x.shape[1:] != shape or not len(x):
        wanted = ", ".join(map(str, shape))
        raise locate.DataError(f"{path}: {name}: wanted [M, {wanted}], M >= 1, got {list(x.shape)}")
    if config.data.are_images:
        if x.dtype != np.uint8:
            raise locate.DataError(f"{path}: {name}: wanted uint8, got {x.dtype}")
        return structured_outputs.scaled(x)
    if not np.all(np.abs(x) <= np.finfo(np.float32).max):
        raise locate.DataError(f"{path}: {name}: wanted finite numbers of float32's range")
    return x.astype(np.float32)


def _networks(system):
    """The variables of a state's networks, by field."""
    return {name: getattr(system, name) for name in ("network", "value") if hasattr(system, name)}


def _save_pictures(config, directory, found, held_out):
    scores = refinement(config, found, held_out)
    if found.trajectory.shape[1] > 1:
        pictures.save_curves(
            os.path.join(directory, "refinement.png"),
            np.arange(found.trajectory.shape[1]),
            scores,
            xlabel="step of the ascent",
            ylabel="%",
        )
    if config.data.are_images:
        rows = np.linspace(0, len(held_out.x) - 1, _SHOWN).astype(int)
        ends = {"proposed": found.trajectory[rows, 0], "refined": found.trajectory[rows, -1]}
        panels = {"true": held_out.y[rows]} | ends
        _save_segmented(os.path.join(directory, "examples.png"), held_out.x[rows], panels)


def _save_segmented(path, x, panels):
    """Photographs beside (relaxed) masks; hair, face and background as colours."""
    shown = {"photograph": 0.5 * (x + 1)} | panels
    pictures.save_side_by_side(path, shown, columns=4)


def _default(argv):
    """The config whose fields the command line changes: that of its data set and method."""
    # a flag's value may be its own argument
    arguments = [*argv, *map(" ".join, itertools.pairwise(argv))]
    chosen = {found[1]: found[2] for found in map(_CHOICE.fullmatch, arguments) if found}
    try:
        return settled(chosen.get("dataset", "bibtex"), chosen.get("method", "alen"))
    except ValueError:
        return Config()  # refuses the choice in a line, when it is parsed


MODES = {
    "predict": common.Mode(
        predict_file,
        {"input": None, "output": None},
        "Predicts for the inputs of a file instead; needs no data.",
    )
}

if __name__ == "__main__":
    common.run(train, _default(sys.argv), MODES)
