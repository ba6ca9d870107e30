r"""Associative adversarial networks: an adversarial game whose noise is a learned memory.

A layer of the discriminator, :math:`D(x) = C(F(x))` with features :math:`F(x) \in (-1, 1)^V`, is
the visible layer of a restricted Boltzmann machine of spins. The machine learns the distribution of
the features of real images by contrastive divergence; the ends of its Gibbs chains, the negative
samples, are what the generator paints images from.

.. math:: \min_G \max_{\hat p} \max_D\; \mathrm{E}_{x} \log D(x)
          + \mathrm{E}_{f \sim \hat p} \log(1 - D(G(f))) + \mathrm{E}_x \log \hat p(F(x))

As printed, the features of all real images soon saturate alike, and the memory and the generator
collapse with them. ``normalised`` gives what the features receive mean 0 and variance 1 over the
real images, by running statistics that are constants of the network, and keeps them apart.

A step trains all three on one minibatch: the memory on the features of the real images, the
discriminator, and the generator against the new discriminator. No gradient of the memory's
likelihood reaches the discriminator.

With ``memory="uniform"`` the same two players get noise of the same size instead, uniform on
(-1, 1): the paper's baseline.

Reference: Arici and Celikyilmaz, "Associative Adversarial Networks", Equation 1 and §6.
"""

import dataclasses
import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Key, PyTree

from gasn_jax.checks import require
from gasn_jax.energy import contrastive_divergence, gibbs
from gasn_jax.energy import rbm as rbms
from gasn_jax.learning import adversarial, descent
from gasn_jax.nn import convolution

# How far beyond 1 a scaled pixel may be.
_ROUNDING = 1e-4
# Samples that the generator paints at once.
_AT_ONCE = 500
# Of the running statistics, a step.
_STATISTICS_RATE = 0.1

Params = PyTree
Image = Float[Array, "H W K"]


@dataclasses.dataclass(frozen=True)
class AANConfig:
    """What an AAN is made of; the defaults are the paper's §6, for 64x64 colour images.

    It names no learning rates of Adam and no size of the memory but 100 and 1000; the rates are
    those of DCGAN, which it follows.
    """

    # Images: rows, columns and colours.
    height: int = 64
    width: int = 64
    num_channels: int = 3
    # What the generator paints from: "rbm", or "uniform" noise of the same size.
    memory: str = "rbm"
    # Units of the memory: features of the discriminator, and hidden ones.
    num_visible: int = 100
    num_hidden: int = 100
    # What of the features, and of the negative samples, is used: tanh "mean" or drawn "spin".
    visible: str = "mean"
    # Gibbs steps of contrastive divergence.
    num_gibbs_steps: int = 2
    # Whether chains go on from where they were, or start at the features of the minibatch.
    persistent: bool = False
    # Weight of minus the memory's entropy in its loss; the paper has none.
    entropy_weight: float = 0.0
    # Channels of the discriminator's convolutions, each of which halves the image; the generator's
    # are the same, last to first.
    channels: tuple[int, ...] = (64, 128, 256, 512)
    # Widths of the discriminator's layers after the features.
    hidden: tuple[int, ...] = (500, 500)
    # Whether what the features receive has mean 0 and variance 1 over the real images; the paper's
    # has not.
    normalised: bool = False
    # The generator's loss: "saturating" (Equation 1) or "non_saturating".
    loss: str = "saturating"
    # Weight of the R1 penalty in the discriminator's loss.
    r1: float = 0.0
    # Adam's learning rates (b1 = 0.5), and rate and momentum of the memory's gradient descent.
    discriminator_rate: float = 2e-4
    generator_rate: float = 2e-4
    memory_rate: float = 1e-3
    memory_momentum: float = 0.8

    def __post_init__(self):
        """Raises ValueError naming the field, what is wanted and what was given."""
        counts = ("num_channels", "num_visible", "num_hidden", "num_gibbs_steps")
        for name in counts:
            value = getattr(self, name)
            require(isinstance(value, int) and value >= 1, name, "an integer >= 1", value)
        for name in ("channels", "hidden"):
            widths = getattr(self, name)
            require(all(width >= 1 for width in widths), name, "widths >= 1", widths)
        require(len(self.channels) >= 1, "channels", "a layer", self.channels)
        halved = 2 ** len(self.channels)
        for name in ("height", "width"):
            value = getattr(self, name)
            wanted = f"a positive multiple of {halved}, to be halved by every layer"
            require(value >= 1 and value % halved == 0, name, wanted, value)
        for name in ("entropy_weight", "r1"):
            value = getattr(self, name)
            require(0 <= value < math.inf, name, ">= 0 and finite", value)
        for name in ("discriminator_rate", "generator_rate", "memory_rate"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, "> 0 and finite", value)
        momentum = self.memory_momentum
        require(0 <= momentum < 1, "memory_momentum", "in [0, 1)", momentum)
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            require(value in allowed, name, f"one of {', '.join(allowed)}", value)

    @property
    def rbm(self) -> rbms.RBM:
        """The memory."""
        return rbms.RBM(self.num_visible, self.num_hidden)


class AANState(NamedTuple):
    """What the next step needs.

    Attributes:
      generator: parameters of G.
      discriminator: variables of D: "params", and where it is normalised "statistics".
      memory: parameters of the RBM.
      generator_optimizer, discriminator_optimizer, memory_optimizer: their optax states.
      chains: where the memory's Gibbs chains ended, v [m, V].
    """

    generator: Params
    discriminator: Params
    memory: rbms.Params
    generator_optimizer: Any
    discriminator_optimizer: Any
    memory_optimizer: Any
    chains: Float[Array, "m V"]


class Walk(NamedTuple):
    """A Gibbs chain of the memory, seen through the generator.

    Attributes:
      start: where it starts, the visible units at the features of an image, [V].
      visible: what the generator painted from, [num_steps, V].
      images: [num_steps, H, W, K].
    """

    start: Float[Array, "V"]
    visible: Float[Array, "S V"]
    images: Float[Array, "S H W K"]


def init(config: AANConfig, key: Key[Array, ""], batch_size: int) -> AANState:
    """A fresh state; as many chains as images in a minibatch, drawn from the fresh memory."""
    require(batch_size >= 1, "batch_size", ">= 1", batch_size)
    generator_key, discriminator_key, memory_key, chain_key = jax.random.split(key, 4)
    generator = _generator(config).init(generator_key, jnp.zeros(config.num_visible))
    discriminator = _discriminator(config).init(discriminator_key, jnp.zeros(_shape(config)))
    memory = rbms.init(memory_key, config.rbm)
    keys = jax.random.split(chain_key, batch_size)
    return AANState(
        generator=generator,
        discriminator=discriminator,
        memory=memory,
        generator_optimizer=_adam(config.generator_rate).init(generator),
        discriminator_optimizer=_adam(config.discriminator_rate).init(discriminator["params"]),
        memory_optimizer=_memory_optimizer(config).init(memory),
        chains=jax.vmap(lambda k: gibbs.init(k, memory, config.rbm).v)(keys),
    )


def train_step(
    config: AANConfig, state: AANState, images: Float[Array, "m H W K"], key: Key[Array, ""]
) -> tuple[AANState, dict[str, Float[Array, ""]]]:
    """One step of all three on one minibatch (Equation 1).

    Args:
      config: the system.
      state: before the step.
      images: real ones, in [-1, 1].
      key: of this step.

    Returns:
      The state after the step, and metrics: ``objective`` of the discriminator with its penalty,
      ``real_log_probability`` and ``fake_log_probability`` (mean log D of both kinds; Figure 2 is
      their ratio), and of a memory ``free_energy_gap``, the mean free energy of the features less
      that of the chains. ``objective`` is NaN for images out of [-1, 1].

    Raises:
      ValueError: at trace time, for images of another shape, or integers.
    """
    _check(config, images, "m")
    clamp_key, memory_key, draw_key = jax.random.split(key, 3)
    state = state._replace(discriminator=_kept_up(config, state.discriminator, images))
    inputs, state, metrics = _remember(config, state, images, clamp_key, memory_key, draw_key)
    fake, pull_back = jax.vjp(lambda params: generate(config, params, inputs), state.generator)

    def discriminator_objective(params):
        def logit_fn(x):
            return discriminate(config, state.discriminator | {"params": params}, x)[1]

        real_logits, fake_logits = jax.vmap(logit_fn)(images), jax.vmap(logit_fn)(fake)
        objective = adversarial.discriminator_loss(real_logits, fake_logits)
        if config.r1:
            objective += config.r1 * adversarial.r1_penalty(logit_fn, images)
        return objective, {
            "objective": objective,
            "real_log_probability": jnp.mean(jax.nn.log_sigmoid(real_logits)),
            "fake_log_probability": jnp.mean(jax.nn.log_sigmoid(fake_logits)),
        }

    old = state.discriminator["params"]
    gradient, found = jax.grad(discriminator_objective, has_aux=True)(old)
    params, discriminator_optimizer = descent.step(
        _adam(config.discriminator_rate), gradient, state.discriminator_optimizer, old
    )
    discriminator = state.discriminator | {"params": params}

    def generator_objective(fake):
        logits = jax.vmap(lambda x: discriminate(config, discriminator, x)[1])(fake)
        return adversarial.GENERATOR_LOSSES[config.loss](logits)

    (gradient,) = pull_back(jax.grad(generator_objective)(fake))
    generator, generator_optimizer = descent.step(
        _adam(config.generator_rate), gradient, state.generator_optimizer, state.generator
    )
    state = state._replace(
        generator=generator,
        discriminator=discriminator,
        generator_optimizer=generator_optimizer,
        discriminator_optimizer=discriminator_optimizer,
    )
    return state, metrics | found


def discriminate(
    config: AANConfig, params: Params, image: Image
) -> tuple[Float[Array, "V"], Float[Array, ""]]:
    """The features ``F(x)`` of one image, and the logit of ``D(x) = C(F(x))``.

    Both are NaN for an image out of [-1, 1]; one of another shape, or of integers, is a
    ``ValueError``.
    """
    _check(config, image)
    features, logit = cast(tuple[Array, Array], _discriminator(config).apply(params, image))
    valid = jnp.where(jnp.max(jnp.abs(image)) <= 1 + _ROUNDING, 1.0, jnp.nan)
    return valid * features, valid * logit


def clamp(
    config: AANConfig, key: Key[Array, ""], features: Float[Array, "..."]
) -> Float[Array, "..."]:
    """The memory's visible layer for given features: themselves, or spins of these means."""
    if config.visible == "mean":
        return features
    uniform = jax.random.uniform(key, features.shape, features.dtype, -1.0, 1.0)
    spins = jnp.where(uniform < features, 1.0, -1.0).astype(features.dtype)
    return jnp.where(jnp.isnan(features), features, spins)


def generate(
    config: AANConfig, params: Params, inputs: Float[Array, "m V"]
) -> Float[Array, "m H W K"]:
    """The images ``G(f)``, pixels in (-1, 1)."""
    return cast(Array, jax.vmap(lambda f: _generator(config).apply(params, f))(inputs))


def sample(
    config: AANConfig,
    state: AANState,
    key: Key[Array, ""],
    num_samples: int,
    *,
    num_gibbs_steps: int = 100,
) -> Float[Array, "n H W K"]:
    """Images from the memory's own chains: no data is needed.

    Args:
      config: the system.
      state: of training; a chain starts where one of its chains ended, chosen at random.
      key: of this draw.
      num_samples: n.
      num_gibbs_steps: of every chain, >= 1.

    Returns:
      Images, pixels in (-1, 1).

    Raises:
      ValueError: at trace time, for counts out of range.
    """
    require(num_samples >= 1, "num_samples", ">= 1", num_samples)
    start_key, walk_key = jax.random.split(key)

    def painted(inputs):
        generator = _generator(config)
        return lax.map(
            lambda f: cast(Array, generator.apply(state.generator, f)), inputs, batch_size=_AT_ONCE
        )

    if config.memory == "uniform":
        return painted(_uniform(config, start_key, num_samples))
    rows = jax.random.randint(start_key, (num_samples,), 0, state.chains.shape[0])
    chains = gibbs.State(state.chains[rows])

    def end(key, chain):
        return gibbs.run(key, chain, state.memory, config.rbm, num_steps=num_gibbs_steps)

    chains, info = jax.vmap(end)(jax.random.split(walk_key, num_samples), chains)
    return painted(_seen(config, chains.v, info.visible_mean))


def walk(
    config: AANConfig, state: AANState, key: Key[Array, ""], image: Image, *, num_steps: int
) -> Walk:
    """The Gibbs chain that starts at the features of an image, step by step (Figure 3).

    Args:
      config: the system, with a memory.
      state: of training.
      key: of this chain.
      image: a real one, in [-1, 1].
      num_steps: Gibbs steps, >= 1.

    Returns:
      :class:`Walk`, NaN for an image out of [-1, 1].

    Raises:
      ValueError: at trace time, for a system without a memory, ``num_steps < 1``, and as
        :func:`discriminate`.
    """
    if config.memory != "rbm":
        raise ValueError(f"memory must be rbm, got {config.memory!r}")
    require(num_steps >= 1, "num_steps", ">= 1", num_steps)
    clamp_key, walk_key = jax.random.split(key)
    features = discriminate(config, state.discriminator, image)[0]

    def body(chain, key):
        chain, info = gibbs.step(key, chain, state.memory, config.rbm)
        return chain, _seen(config, chain.v, info.visible_mean)

    start = clamp(config, clamp_key, features)
    keys = jax.random.split(walk_key, num_steps)
    _, visible = lax.scan(body, gibbs.State(start), keys)
    return Walk(start, visible, generate(config, state.generator, visible))


def _kept_up(config, discriminator, images):
    """The discriminator with running statistics of what its features receive of real images."""
    if not config.normalised:
        return discriminator
    network = _discriminator(config)
    received = jax.vmap(lambda x: cast(Array, network.apply(discriminator, x, method="received")))(
        images
    )
    new = {"mean": jnp.mean(received, axis=0), "variance": jnp.var(received, axis=0)}
    statistics = optax.incremental_update(new, discriminator["statistics"], _STATISTICS_RATE)
    return discriminator | {"statistics": statistics}


def _remember(config, state, images, clamp_key, memory_key, draw_key):
    """What the generator gets, the state with a better memory, and its metrics."""
    if config.memory == "uniform":
        return _uniform(config, draw_key, images.shape[0]), state, {}
    features = jax.vmap(lambda x: discriminate(config, state.discriminator, x)[0])(images)
    v = clamp(config, clamp_key, features)
    chains = state.chains if config.persistent else v
    found = contrastive_divergence.gradient(
        *(memory_key, state.memory, config.rbm, v),
        chains=gibbs.State(chains),
        means=config.visible == "mean",
        num_steps=config.num_gibbs_steps,
    )
    gradient = found.gradient
    if config.entropy_weight:
        entropy = contrastive_divergence.entropy_gradient(state.memory, config.rbm, found.chains.v)
        gradient = jax.tree.map(lambda g, e: g + config.entropy_weight * e, gradient, entropy)
    energy = jax.vmap(lambda one: rbms.free_energy(state.memory, config.rbm, one))
    metrics = {"free_energy_gap": jnp.mean(energy(v)) - jnp.mean(energy(found.chains.v))}
    memory, optimizer = descent.step(
        _memory_optimizer(config), gradient, state.memory_optimizer, state.memory
    )
    state = state._replace(memory=memory, memory_optimizer=optimizer, chains=found.chains.v)
    return _seen(config, found.chains.v, found.visible_mean), state, metrics


def _seen(config, spins, means):
    """What the generator gets of a chain's end."""
    return means if config.visible == "mean" else spins


def _uniform(config, key, count):
    return jax.random.uniform(key, (count, config.num_visible), minval=-1.0, maxval=1.0)


def _check(config, images, *leading):
    """Raises ``ValueError`` for images [*leading, H, W, K] of another shape, or of integers."""
    shape = (*leading, *_shape(config))
    if images.ndim != len(shape) or images.shape[len(leading) :] != _shape(config):
        wanted = f"[{', '.join(map(str, shape))}]"
        raise ValueError(f"images must have shape {wanted}, got {images.shape}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images must be floating, got {images.dtype}")


def _shape(config):
    return config.height, config.width, config.num_channels


def _generator(config):
    size = _shape(config)
    return convolution.ImageGenerator(*size, hidden=config.channels[::-1])


def _discriminator(config):
    return convolution.FeatureCritic(
        config.num_visible, config.channels, config.hidden, config.normalised
    )


def _adam(rate):
    return optax.adam(rate, b1=0.5)


def _memory_optimizer(config):
    return optax.sgd(config.memory_rate, momentum=config.memory_momentum)


_CHOICES: dict[str, tuple[str, ...]] = {
    "memory": ("rbm", "uniform"),
    "visible": ("mean", "spin"),
    "loss": tuple(adversarial.GENERATOR_LOSSES),
}
