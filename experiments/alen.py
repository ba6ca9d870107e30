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

import dataclasses
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

from experiments import alen_settings, common, energy_methods, structured_outputs
from gasn_jax.checks import FLOAT32_RANGE, fits_memory
from gasn_jax.data import archive, locate
from gasn_jax.evaluation import overlap
from gasn_jax.nn import segmentation
from gasn_jax.systems import dvn
from gasn_jax.training import loop, pictures
from gasn_jax.training.errors import ConfigError, require

# Inputs that are predicted at a time: as many labels', and as few images', as are fastest.
_CHUNK, _IMAGE_CHUNK = 256, 16
_SHOWN, _CURVES = 16, 8
_OF_LABELS = ("logistic", "feed_forward_half", "spen", "spen_end_to_end", "inference_network")
_TINY, _HUGE = FLOAT32_RANGE
# Of numeric fields, whether the method uses them or not.
_RANGES: tuple[tuple[str, Callable[[Any], bool], tuple[str, ...]], ...] = (
    (
        ">= 1",
        lambda x: x >= 1,
        ("batch_size", "hidden", "value_hidden", "num_interactions", "num_adversarial_steps"),
    ),
    (">= 0", lambda x: x >= 0, ("num_ascent_steps", "num_refinements")),
    ("within float32", lambda x: abs(x) <= _HUGE, ("initial_logit",)),
    (
        "> 0 and within float32",
        lambda x: _TINY <= x <= _HUGE,
        ("network_rate", "value_rate", "step_size"),
    ),
    (
        ">= 0 and within float32",
        lambda x: 0 <= x <= _HUGE,
        ("network_decay", "value_decay", "cost_weight")
        + ("network_weight", "refined_weight", "adversarial_weight"),
    ),
    (
        "in [0, 1)",
        lambda x: 0 <= x < 1,
        ("threshold", "network_threshold", "momentum")
        + ("average_decay", "dropout_rate", "value_dropout_rate"),
    ),
    (
        "in [0, 1]",
        lambda x: 0 <= x <= 1,
        ("unary_share", "joint_share", "true_share", "adversarial_share"),
    ),
)
_CHOICE = re.compile(r"--?config\.(dataset|method)[= ](\S*)")


@dataclasses.dataclass(frozen=True)
class Config(loop.LoopConfig):
    # Training steps.
    num_steps: int = 2000
    log_every: int = 100
    checkpoint_every: int = 1000
    # bibtex, bookmarks, horses, lfw_parts, or lfw_superpixels (the published files, which have
    # superpixels).
    dataset: str = "bibtex"
    # feed_forward, dvn, network_alone, aen, alen_no_task or alen; of labels also logistic,
    # feed_forward_half, spen, spen_end_to_end or inference_network.
    method: str = "alen"
    # Folder that holds the sets; empty for the environment variable GASN_DATA, then ../shared/data.
    data_dir: str = ""
    # The part that is predicted: test (trained on the others), or validation, which chose settings.
    held_out: str = "test"
    # Examples of each step.
    batch_size: int = 64
    # Adam's learning rate for the inference network.
    network_rate: float = 1e-3
    # Adam's learning rate for the value network.
    value_rate: float = 1e-3
    # Decoupled weight decay of the inference network.
    network_decay: float = 0.0
    # Decoupled weight decay of the value network.
    value_decay: float = 0.0
    # Decay per step of the running mean of the parameters, which is what predicts.
    average_decay: float = 0.995
    # Labels: the inference network's logits before training.
    initial_logit: float = 0.0
    # Labels: units of the inference network's hidden layer.
    hidden: int = 150
    # Labels: units of the value network's hidden layer.
    value_hidden: int = 150
    # Labels: units of the value network that labels interact through.
    num_interactions: int = 16
    # Images: channels of the inference network's three convolutions.
    channels: tuple[int, ...] = (64, 128, 128)
    # Images: channels of the value network's three convolutions.
    value_channels: tuple[int, ...] = (64, 128, 128)
    # Images: whether deconvolutions also see the convolutions of their size.
    skips: bool = True
    # Images: how many channels are normalised together; 0 for no normalisation.
    group_size: int = 0
    # Images: whether groups are normalised over each row of pixels, not over the whole image.
    group_rows: bool = False
    # What the value of a mask is: the mean of "scores", the "overlap" with a mask that they make,
    # or one of each of the "pixels", by that mask.
    energy: str = "scores"
    # Images: side of the square crops, at random places, that are learnt from.
    crop: int = 32
    # Images: a prediction is the mean over the crops at every so many pixels.
    crop_step: int = 4
    # Images: whether a prediction is also the mean over the crops' mirror images.
    mirrored: bool = False
    # Dropout of the inference network.
    dropout_rate: float = 0.0
    # Dropout of the value network.
    value_dropout_rate: float = 0.0
    # Steps of the ascent in training.
    num_ascent_steps: int = 20
    # Steps of the ascent at prediction.
    num_refinements: int = 30
    # Length of a step of the ascent: of its gradient's factor, or of the step if normalised.
    step_size: float = 0.3
    # Whether the ascent's gradient is normalised (Equation 12).
    normalize: bool = True
    # Momentum of the ascent.
    momentum: float = 0.0
    # Refined labels are 1 above this.
    threshold: float = 0.5
    # What the inference network proposes is 1 above this.
    network_threshold: float = 0.5
    # ALEN: weight of the proposal's term in the value network's loss.
    network_weight: float = 1.0
    # ALEN: weight of the refined output's term in the value network's loss.
    refined_weight: float = 1.0
    # ALEN, inference networks: weight of the adversarial term in the inference network's loss.
    adversarial_weight: float = 1.0
    # SPEN, inference networks: factor of the cost in the margin.
    cost_weight: float = 1.0
    # SPEN: share of the steps, at the start, that train the unary part alone.
    unary_share: float = 0.0
    # Inference networks: share of the steps, at the start, that train both networks.
    joint_share: float = 0.8
    # DVN: share of each step's outputs that are true.
    true_share: float = 0.25
    # DVN: share of each step's outputs that are adversarial.
    adversarial_share: float = 0.25
    # DVN: steps of the adversarial outputs' ascent.
    num_adversarial_steps: int = 1
    # DVN: whether the oracle is a constant in that ascent's gradient.
    constant_oracle: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (
            ("dataset", structured_outputs.DATASETS),
            ("held_out", ("test", "validation")),
            ("energy", segmentation.ENERGIES),
        ):
            value = getattr(self, name)
            require(value in known, name, f"one of {', '.join(known)}", value)
        for wanted, fits, names in _RANGES:
            for name in names:
                require(fits(getattr(self, name)), name, wanted, getattr(self, name))
        for name in ("channels", "value_channels"):
            value = getattr(self, name)
            require(len(value) == 3 and min(value) >= 1, name, "three numbers >= 1", value)
            size = self.group_size or 1
            fits = size >= 1 and all(width % size == 0 for width in value)
            require(fits, "group_size", f"0, or a divisor of all {name}", self.group_size)
        images = self.data.are_images
        known = [name for name in energy_methods.METHODS if not images or name not in _OF_LABELS]
        fits, wanted = self.method in known, f"one of {', '.join(known)} for {self.dataset}"
        require(fits, "method", wanted, self.method)
        require(images or not self.mirrored, "mirrored", "false for labels", True)
        require(self.crop in range(4, 33, 4), "crop", "a multiple of 4 in [4, 32]", self.crop)
        require(images or self.crop == 32, "crop", "32 for labels", self.crop)
        require(1 <= self.crop_step <= self.crop, "crop_step", "in [1, crop]", self.crop_step)
        least = int(self.method.startswith("spen"))
        wanted = f">= {least} for {self.method}"
        require(self.num_ascent_steps >= least, "num_ascent_steps", wanted, self.num_ascent_steps)
        system = energy_methods.learner(self).system
        if isinstance(system, dvn.DVNConfig):
            wanted = f">= {system.num_kinds} for dvn"
            require(self.batch_size >= system.num_kinds, "batch_size", wanted, self.batch_size)

    @property
    def data(self) -> structured_outputs.Dataset:
        """The data set's shapes, scores and readers."""
        return structured_outputs.DATASETS[self.dataset]


def settled(dataset: str, method: str, *, wide: bool = False, **fields: Any) -> Config:
    """The config of a method on a data set, with the settings that were chosen for it.

    With ``wide``, those of masks by wide networks, which ask for a GPU.
    """
    named: dict[str, Any] = {"dataset": dataset, "method": method}
    return Config(**named | alen_settings.of(dataset, method, wide=wide) | fields)


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
    views = structured_outputs.views(
        side=config.crop, step=config.crop_step, mirrored=config.mirrored
    )

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


def _check_memory(config, num_inputs):
    """Of their trajectories, before they are computed."""
    size = 4 * num_inputs * (config.num_refinements + 1) * math.prod(config.data.y_shape)
    fits_memory("num_refinements", size, ConfigError)


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
