"""The config of `experiments.alen`: its fields, what they may be, and the chosen settings."""

import dataclasses
from collections.abc import Callable
from typing import Any

from experiments import alen_settings, energy_methods, structured_outputs
from gasn_jax.checks import FLOAT32_RANGE
from gasn_jax.nn import segmentation
from gasn_jax.systems import dvn
from gasn_jax.training import loop
from gasn_jax.training.errors import require

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
