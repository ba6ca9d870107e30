"""An associative adversarial network learns images: its samples, and its memory's Gibbs chains.

    python -m experiments.aan --workdir=DIR [--config.dataset=mnist|faces|celeba]

learns MNIST (28x28), the faces of LFW parts (32x32, in colour; they stand in for CelebA), or CelebA
itself (64x64) where it is at hand. The networks are narrower than the paper's, so that two cores of
a CPU train them, and some settings are those that worked here. The paper's are

    --config.dataset=celeba --config.channels="(64, 128, 256, 512)" --config.hidden="(500, 500)"
    --config.batch_size=256 --config.visible=mean --config.normalised=false
    --config.loss=saturating --config.discriminator_rate=2e-4 --config.generator_rate=2e-4

Of four layers images must be a multiple of 16 pixels, as CelebA's and the faces are. MNIST's 28 can
be halved twice: `--config.channels="(64, 128)"` is its wide command, for a GPU. The convolutions
have stride 2 and see 6x6 pixels, 44 % more weights than the paper's 5x5, whose stride of five would
need images of 625 pixels.

MNIST takes 8 minutes on one CPU core, and its digits are recognisable; how good they are beside
those painted from noise is told by `experiments.aan_study`. Faces are recognisable as such after
3500 steps, 4 minutes.

    python -m experiments.aan --workdir=DIR --mode=sample [--num_samples=100] [--sample_seed=0]

draws from a trained run, without the data: `drawn.png`, and `drawn.npz` with the bytes.

Files: `samples.png` and `samples.npz` (chains of the memory, started where those of training
ended), `walk.png` (Figure 3: rows start at real images, columns are Gibbs steps), `ratio.png`
(Figure 2: mean log D of real images over that of generated ones).
"""

import dataclasses
import functools
import os

import jax
import numpy as np
from absl import logging

from experiments import common, images
from gasn_jax.systems import aan
from gasn_jax.training import loop, pictures, workdir
from gasn_jax.training.errors import require

_WALKS, _WALK_STEPS, _COLUMNS = 10, 10, 10


@dataclasses.dataclass(frozen=True)
class Config(loop.LoopConfig):
    num_steps: int = 10_000
    checkpoint_every: int = 1000
    # What to learn: mnist, faces, or celeba.
    dataset: str = "mnist"
    # Folder that holds mnist/, lfw_parts/ or celeba/; empty for the environment variable GASN_DATA,
    # then ../shared/data.
    data_dir: str = ""
    # Whether images of celeba that cannot be read are left out, and named, instead of refused.
    skip_bad_images: bool = False
    # Real images, as many generated ones, and chains of the memory, in each step.
    batch_size: int = 64
    # What the generator paints from: rbm, or uniform noise of the same size (the baseline).
    memory: str = "rbm"
    # Units of the memory: features of the discriminator, and hidden ones.
    num_visible: int = 100
    num_hidden: int = 100
    # What of features and negative samples is used: their tanh mean, or a drawn spin.
    visible: str = "spin"
    # Gibbs steps of contrastive divergence.
    num_gibbs_steps: int = 2
    # Whether chains go on from where they were, or start at the features of the minibatch.
    persistent: bool = False
    # Weight of minus the memory's entropy in its loss.
    entropy_weight: float = 0.0
    # Channels of the discriminator's convolutions, each of which halves the image.
    channels: tuple[int, ...] = (32, 64)
    # Widths of the discriminator's layers after the features.
    hidden: tuple[int, ...] = (128,)
    # Whether what the features receive has mean 0 and variance 1 over the real images.
    normalised: bool = True
    # The generator's loss: non_saturating, or saturating (Equation 1).
    loss: str = "non_saturating"
    # Weight of the R1 penalty in the discriminator's loss.
    r1: float = 0.0
    # Adam's learning rates.
    discriminator_rate: float = 1e-3
    generator_rate: float = 1e-3
    # Learning rate of the memory.
    memory_rate: float = 1e-3
    # Momentum of the memory.
    memory_momentum: float = 0.8
    # Images that are drawn at the end, and the Gibbs steps of each.
    num_samples: int = 100
    num_sample_steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self.dataset in images.DATASETS
        require(known, "dataset", f"one of {', '.join(images.DATASETS)}", self.dataset)
        for name in ("batch_size", "num_samples", "num_sample_steps"):
            require(getattr(self, name) >= 1, name, ">= 1", getattr(self, name))
        several = self.batch_size >= 2 or not self.entropy_weight
        require(several, "batch_size", ">= 2 for an entropy_weight", self.batch_size)
        self.system()

    def system(self) -> aan.AANConfig:
        """Returns the system's config; its ValueError names the field that is out of range."""
        shared = {field.name for field in dataclasses.fields(aan.AANConfig)}
        fields = {name: x for name, x in dataclasses.asdict(self).items() if name in shared}
        height, width, num_channels = images.DATASETS[self.dataset].shape
        return aan.AANConfig(height, width, num_channels, **fields)


def train(config: Config, directory: str) -> aan.AANState:
    """Trains (or restores) the system and writes the files; returns its state."""
    system = config.system()
    real = load(config)

    def batch_fn(data, key):
        return data[jax.random.randint(key, (config.batch_size,), 0, data.shape[0])]

    def step_fn(state, batch, key):
        return aan.train_step(system, state, images.scaled(batch), key)

    state = loop.train(
        config,
        directory,
        init_fn=functools.partial(_init, system, config.batch_size),
        step_fn=step_fn,
        batch_fn=batch_fn,
        data=real.train,
        steps_per_call=loop.steps_per_call(convolutions=True),
    )
    samples = draw(config, state, jax.random.key(config.seed))
    np.savez_compressed(os.path.join(directory, "samples.npz"), samples=samples)
    panels = {"real": real.train[: config.num_samples], "generated": samples}
    pictures.save_side_by_side(
        os.path.join(directory, "samples.png"),
        {name: images.shown(x) for name, x in panels.items()},
        columns=_COLUMNS,
    )
    if config.memory == "rbm":
        _save_walk(config, directory, state, real.test[:_WALKS])
    _save_ratio(directory)
    return state


def sample(config: Config, directory: str, num_samples: int, sample_seed: int) -> np.ndarray:
    """Draws from the trained run in a directory, without its data; writes `drawn.png` and `.npz`.

    Returns:
      The images, uint8 [num_samples, H, W, K].
    """
    init_fn = functools.partial(_init, config.system(), config.batch_size)
    state = loop.restore(config, directory, init_fn=init_fn)
    config = dataclasses.replace(config, num_samples=num_samples)
    drawn = draw(config, state, jax.random.key(sample_seed))
    np.savez_compressed(os.path.join(directory, "drawn.npz"), samples=drawn)
    path = os.path.join(directory, "drawn.png")
    pictures.save_image_grid(path, images.shown(drawn), columns=_COLUMNS)
    logging.info("wrote %s and drawn.npz", path)
    return drawn


def load(config: Config) -> images.Images:
    """The images of the config's dataset."""
    return images.DATASETS[config.dataset].load(config.data_dir or None, config.skip_bad_images)


def draw(config: Config, state: aan.AANState, key: jax.Array) -> np.ndarray:
    """Images of a trained system, uint8 [num_samples, H, W, K]; no data is needed."""
    system = config.system()

    @jax.jit
    def drawn(state, key):
        options = dict(num_gibbs_steps=config.num_sample_steps)
        return aan.sample(system, state, key, config.num_samples, **options)

    return images.as_bytes(drawn(state, key))


def walk(config: Config, state: aan.AANState, key: jax.Array, starts: np.ndarray) -> aan.Walk:
    """Ten Gibbs steps from the features of each image, uint8 [M, H, W, K]; leaves [M, 10, ...]."""
    system = config.system()

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0, 0))
    def walked(state, key, image):
        return aan.walk(system, state, key, image, num_steps=_WALK_STEPS)

    return walked(state, jax.random.split(key, len(starts)), images.scaled(starts))


def ratio(directory: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps that a run logged, and E[log D(x)] / E[log D(G)] at each (Figure 2)."""
    lines = workdir.read_metrics(directory)
    real = np.array([line["real_log_probability"] for line in lines])
    fake = np.array([line["fake_log_probability"] for line in lines])
    return np.array([line["step"] for line in lines]), real / fake


def _init(system, batch_size, key):
    return aan.init(system, key, batch_size)


def _save_walk(config, directory, state, starts):
    """Rows: a real image, and what the generator makes of ten Gibbs steps from its features."""
    steps = images.as_bytes(walk(config, state, jax.random.key(config.seed), starts).images)
    rows = np.concatenate([starts[:, None], steps], axis=1)
    pictures.save_image_grid(
        os.path.join(directory, "walk.png"),
        images.shown(rows.reshape(-1, *rows.shape[2:])),
        columns=1 + _WALK_STEPS,
        title="A real image, and ten Gibbs steps from its features",
    )


def _save_ratio(directory):
    steps, values = ratio(directory)
    if len(steps):
        pictures.save_curves(
            os.path.join(directory, "ratio.png"),
            steps,
            {"E[log D(x)] / E[log D(G)]": values},
            xlabel="step",
            ylabel="E[log D(x)] / E[log D(G)]",
        )


MODES = {
    "sample": common.Mode(
        sample, {"num_samples": 100, "sample_seed": 0}, "Draws from the run; needs no data."
    )
}

if __name__ == "__main__":
    common.run(train, Config(), MODES)
