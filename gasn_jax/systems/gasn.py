"""Generative adversarial structured networks on chains, trees, grids and other pairwise models.

A network maps noise to the potentials of a pairwise model; inference makes the sample. Training
differentiates the smoothed generator, whose output is the unary marginals at a temperature
epsilon > 0; the generator proper is the MAP assignment, epsilon = 0.

The two players are plain functions of their parameters: :func:`potentials` and :func:`logit`. A
step is one descent of the discriminator, then one of the generator against the new discriminator.

Reference: London and Schwing, "Generative Adversarial Structured Networks", Equations 1-3 (game),
8-12 (smoothed generator), 13 and Algorithm 1 (other routes to the same gradient), §4 (networks).
"""

import dataclasses
import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from gasn_jax.checks import FLOAT32_RANGE, require
from gasn_jax.learning import adversarial, descent
from gasn_jax.nn import convolution, mlp
from gasn_jax.structured import engine as engines
from gasn_jax.structured import graph as graphs

Params = PyTree
Potentials = tuple[Float[Array, "N L"], Float[Array, "F L L"]]


@dataclasses.dataclass(frozen=True)
class GASNConfig:
    """What a GASN is made of; the defaults are the paper's §4, but for what the comments say."""

    # The model and its inference: variables, states, and which pairs have scores.
    engine: engines.Engine = engines.Chain(5, 2)
    # Whether examples have lengths: the generator then also sees the length it is to fill.
    variable_length: bool = False
    # Size of the noise vector z.
    noise_dim: int = 2
    # Distribution of z: uniform on (0, 1), or standard normal.
    noise: str = "uniform"
    # Both players: "dense", or "convolutional" for grids with 4 neighbours that are images.
    network: str = "dense"
    # Rows of the image, of convolutional networks.
    height: int = 0
    # Widths of the hidden layers; of convolutional ones the channels, each layer of half (twice
    # for the generator) the height and width.
    generator_hidden: tuple[int, ...] = (10,)
    discriminator_hidden: tuple[int, ...] = (10,)
    # tanh, relu or leaky_relu, in both networks.
    activation: str = "tanh"
    # Neighbours that the discriminator's shared window sees together; 1 for none.
    window: int = 1
    # False: the same generator without pairwise scores.
    pairwise: bool = True
    # The paper's epsilon of the smoothed generator.
    temperature: float = 0.1
    # Scale of the generator's output layer at the start. Scores are divided by the temperature, so
    # the temperature itself is the scale at which marginals start unsaturated.
    output_scale: float = 0.1
    # What the discriminator sees: "marginals", or "straight_through", an exact sample whose
    # gradient is that of the marginals.
    discriminator_input: str = "marginals"
    # How that gradient is computed: "product", "jacobian" (of chains) or "conditioning", see
    # structured.engine.marginals.
    gradient: str = "product"
    # The generator's loss: "saturating" (Equation 1) or "non_saturating".
    loss: str = "saturating"
    # Weight of 1/2 ||w||^2 in the discriminator's loss. The paper has 1, by which the discriminator
    # decays to zero.
    weight_decay: float = 0.05
    # Weight of the R1 penalty in the discriminator's loss.
    r1: float = 0.0
    # "sgd" or "adam" (with b1 = 0.5), both players.
    optimizer: str = "sgd"
    discriminator_rate: float = 0.1
    generator_rate: float = 0.01
    # Decay per step of the running mean of the generator's parameters that samples are drawn
    # with; 0 keeps the last parameters.
    average_decay: float = 0.0

    def __post_init__(self):
        """Raises ValueError naming the field, what is wanted and what was given."""
        require(self.noise_dim >= 0, "noise_dim", ">= 0", self.noise_dim)
        require(self.window >= 1, "window", ">= 1", self.window)
        for name in ("temperature", "discriminator_rate", "generator_rate"):
            value, (tiny, huge) = getattr(self, name), FLOAT32_RANGE
            require(tiny <= value <= huge, name, "> 0 and within float32", value)
        for name in ("output_scale", "weight_decay", "r1"):
            value = getattr(self, name)
            require(0 <= value < math.inf, name, ">= 0 and finite", value)
        for name in ("generator_hidden", "discriminator_hidden"):
            widths = getattr(self, name)
            require(all(width >= 1 for width in widths), name, "widths >= 1", widths)
        require(0 <= self.average_decay < 1, "average_decay", "in [0, 1)", self.average_decay)
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            require(value in allowed, name, f"one of {', '.join(allowed)}", value)
        if not isinstance(self.engine, engines.Chain):
            require(not self.variable_length, "variable_length", "False but for chains", True)
            require(self.gradient != "jacobian", "gradient", "jacobian of chains only", "jacobian")
        if self.network == "convolutional":
            self._check_image()

    def _check_image(self):
        num_variables, height = self.engine.num_variables, self.height
        fits = height >= 1 and num_variables % height == 0
        require(fits, "height", f"a divisor of the {num_variables} variables", height)
        width = num_variables // height
        wanted = graphs.grid(height, width, self.engine.num_states)
        ours = None if isinstance(self.engine, engines.Chain) else self.engine.graph
        wanted_text = f"of a {height}x{width} grid with 4 neighbours"
        require(ours == wanted, "engine", wanted_text, self.engine)
        require(self.window == 1, "window", "1 with convolutional players", self.window)
        require(len(self.generator_hidden) >= 1, "generator_hidden", "a layer", ())
        for name, first in (("generator_hidden", 1), ("discriminator_hidden", 0)):
            widths = getattr(self, name)
            halved = 2 ** (len(widths) - first)
            fits = height % halved == 0 and width % halved == 0
            most = f"so few layers that {height}x{width} can be halved by all"
            require(fits, name, most + (" but the first" if first else ""), widths)


class GASNBatch(NamedTuple):
    """Real examples.

    Attributes:
      states: [m, N] integers, -1 beyond the length.
      lengths: [m] integers, 1..N.
    """

    states: Int[Array, "m N"]
    lengths: Int[Array, "m"]


class GASNState(NamedTuple):
    """What the next step needs.

    Attributes:
      generator: parameters theta.
      discriminator: parameters w.
      generator_optimizer: its optax state.
      discriminator_optimizer: its optax state.
      average: running mean of ``generator``, which samples are drawn with.
      worst: of all steps so far, the lowest ``converged`` and highest ``gradient_residual``, [2].
    """

    generator: Params
    discriminator: Params
    generator_optimizer: Any
    discriminator_optimizer: Any
    average: Params
    worst: Float[Array, "2"]


def init(config: GASNConfig, key: Key[Array, ""]) -> GASNState:
    """A fresh state: both networks and their optimizers."""
    generator_key, discriminator_key = jax.random.split(key)
    length = jnp.asarray(config.engine.num_variables)
    z = _condition(config, jnp.zeros(config.noise_dim), length)
    x = jnp.zeros((config.engine.num_variables, config.engine.num_states))
    generator = _generator(config).init(generator_key, z)
    discriminator = _discriminator(config).init(discriminator_key, x)
    return GASNState(
        generator=generator,
        discriminator=discriminator,
        generator_optimizer=_optimizer(config, config.generator_rate).init(generator),
        discriminator_optimizer=_optimizer(config, config.discriminator_rate).init(discriminator),
        # A copy: a training loop may donate the state's buffers, each of them once.
        average=jax.tree.map(jnp.copy, generator),
        worst=jnp.array([1.0, 0.0]),
    )


def train_step(
    config: GASNConfig, state: GASNState, batch: GASNBatch, key: Key[Array, ""]
) -> tuple[GASNState, dict[str, Float[Array, ""]]]:
    """One descent of the discriminator, then one of the generator (Equations 3, 6 and 7).

    Args:
      config: the system.
      state: before the step.
      batch: m real examples; as many are generated, with their lengths. Both players see these.
      key: of this step.

    Returns:
      The state after the step, and metrics: ``objective`` (Equation 3 with its penalties),
      ``real_probability`` and ``fake_probability`` (mean D of both kinds). Of inference by belief
      propagation, ``converged`` is the share of examples whose beliefs did, and
      ``gradient_residual`` the largest relative residual of the linear systems behind their
      gradients; 1 and 0 if inference is exact. ``lowest_converged`` and
      ``highest_gradient_residual`` are those of all steps so far, lest one goes unseen between two
      lines of a log.
    """
    real = jax.nn.one_hot(batch.states, config.engine.num_states)
    fake, pull_back, converged = jax.vjp(
        lambda params, probes: _generate(config, params, key, batch.lengths, probes),
        *(state.generator, jnp.zeros(batch.lengths.shape)),
        has_aux=True,
    )
    gradient, metrics = jax.grad(_discriminator_objective, 1, has_aux=True)(
        config, state.discriminator, real, fake
    )
    discriminator, discriminator_optimizer = descent.step(
        _optimizer(config, config.discriminator_rate),
        gradient,
        state.discriminator_optimizer,
        state.discriminator,
    )

    def generator_objective(fake):
        fake_logits = jax.vmap(lambda x: logit(config, discriminator, x))(fake)
        return adversarial.GENERATOR_LOSSES[config.loss](fake_logits)

    gradient, residuals = pull_back(jax.grad(generator_objective)(fake))
    generator, generator_optimizer = descent.step(
        _optimizer(config, config.generator_rate),
        gradient,
        state.generator_optimizer,
        state.generator,
    )
    average = optax.incremental_update(generator, state.average, 1.0 - config.average_decay)
    residual = jnp.max(residuals)
    worst = jnp.minimum(converged, state.worst[0]), jnp.maximum(residual, state.worst[1])
    state = GASNState(
        *(generator, discriminator, generator_optimizer, discriminator_optimizer, average),
        worst=jnp.stack(worst),
    )
    return state, metrics | {
        "converged": converged,
        "gradient_residual": residual,
        "lowest_converged": worst[0],
        "highest_gradient_residual": worst[1],
    }


def potentials(
    config: GASNConfig, params: Params, z: Float[Array, "Z"], length: Int[Array, ""]
) -> Potentials:
    """The scores ``f_r(theta, z, x_r)`` of every region for one noise vector (Equation 4)."""
    scores = _generator(config).apply(params, _condition(config, z, length))
    return cast(Potentials, scores)


def logit(config: GASNConfig, params: Params, x: Float[Array, "N L"]) -> Float[Array, ""]:
    """The discriminator's logit for one (soft) one-hot example [N, L]; ``D_w(x) = sigmoid``."""
    return cast(Array, _discriminator(config).apply(params, x))


def smoothed_generator(
    config: GASNConfig,
    unary: Float[Array, "N L"],
    pairwise: Float[Array, "F L L"],
    length: Int[Array, ""],
    probe: engines.Probe = 0.0,
) -> engines.Beliefs:
    """The marginals at ``config.temperature``, with the gradient route of the config.

    Args:
      config: its ``engine``, ``temperature`` and ``gradient`` are used.
      unary: scores, [N, L].
      pairwise: scores, [F, L, L].
      length: variables in use, of a chain.
      probe: see :mod:`gasn_jax.structured.engine`.

    Returns:
      ``p(x_i)`` and whether they converged, see :func:`gasn_jax.structured.engine.marginals`.

    Reference: GASN paper, Equation 10; gradients by Equation 12, Algorithm 1 and Equation 13.
    """
    return engines.marginals(
        config.engine,
        *(unary, pairwise),
        temperature=config.temperature,
        length=length,
        gradient=config.gradient,
        probe=probe,
    )


def noise(config: GASNConfig, key: Key[Array, ""], num_samples: int) -> Float[Array, "m Z"]:
    """Noise vectors z, [num_samples, noise_dim]."""
    draw = jax.random.uniform if config.noise == "uniform" else jax.random.normal
    return draw(key, (num_samples, config.noise_dim))


def sample(
    config: GASNConfig,
    params: Params,
    key: Key[Array, ""],
    lengths: Int[Array, "m"],
    *,
    mode: str = "sample",
) -> engines.Found:
    """Generated examples, one noise vector each.

    Args:
      config: the system.
      params: of the generator, usually ``state.average``.
      key: of this draw.
      lengths: how many variables each example has, [m]; all N where they have no lengths.
      mode: "sample" draws from the model at ``config.temperature``; "map" takes its best state,
        the generator of Equation 2 (the best that was found, by belief propagation).

    Returns:
      States [m, N] int32, -1 beyond the length, and whether each example is reliable, [m]: always
      of exact engines.

    Raises:
      ValueError: at trace time, for an unknown ``mode``.
    """
    if mode not in ("sample", "map"):
        raise ValueError(f"mode must be sample or map, got {mode!r}")
    noise_key, model_key = jax.random.split(key)

    def one(key, z, length):
        scores = potentials(config, params, z, length)
        if mode == "map":
            return config.engine.argmax(*scores, length=length)
        return _draw(config, key, scores, length)

    z = noise(config, noise_key, lengths.shape[0])
    return jax.vmap(one)(jax.random.split(model_key, lengths.shape[0]), z, lengths)


def beliefs(
    config: GASNConfig, params: Params, key: Key[Array, ""], lengths: Int[Array, "m"]
) -> engines.Beliefs:
    """The smoothed generator's outputs (Equation 10), one noise vector each, batched [m, ...]."""

    def one(z, length):
        return smoothed_generator(config, *potentials(config, params, z, length), length)

    return jax.vmap(one)(noise(config, key, lengths.shape[0]), lengths)


def _generate(config, params, key, lengths, probes=None):
    """What the discriminator sees of the generator, [m, N, L]; and the share that converged."""
    probes = jnp.zeros(lengths.shape) if probes is None else probes
    noise_key, model_key = jax.random.split(key)

    def one(key, z, length, probe):
        scores = potentials(config, params, z, length)
        beliefs = smoothed_generator(config, *scores, length, probe)
        p = beliefs.unary
        if config.discriminator_input == "marginals":
            return p, beliefs.converged
        drawn = _draw(config, key, *jax.lax.stop_gradient((scores, length, beliefs)))
        drawn = jax.nn.one_hot(drawn.states, config.engine.num_states)
        # The difference is exactly zero: what is seen is the sample.
        return drawn + (p - jax.lax.stop_gradient(p)), beliefs.converged

    z = noise(config, noise_key, lengths.shape[0])
    keys = jax.random.split(model_key, lengths.shape[0])
    seen, converged = jax.vmap(one)(keys, z, lengths, probes)
    return seen, jnp.mean(converged.astype(seen.dtype))


def _draw(config, key, scores, length, beliefs=None):
    """One sample of the model; ``beliefs`` if they are known."""
    options = dict(temperature=config.temperature, length=length, beliefs=beliefs)
    return config.engine.sample(key, *scores, **options)


def _discriminator_objective(config, params, real, fake):
    def logit_fn(x):
        return logit(config, params, x)

    real_logits, fake_logits = jax.vmap(logit_fn)(real), jax.vmap(logit_fn)(fake)
    objective = adversarial.discriminator_loss(real_logits, fake_logits)
    if config.weight_decay:
        objective += config.weight_decay * adversarial.l2_penalty(params)
    if config.r1:
        objective += config.r1 * adversarial.r1_penalty(logit_fn, real)
    return objective, {
        "objective": objective,
        "real_probability": jnp.mean(jax.nn.sigmoid(real_logits)),
        "fake_probability": jnp.mean(jax.nn.sigmoid(fake_logits)),
    }


def _generator(config):
    options = dict(
        num_states=config.engine.num_states,
        hidden=config.generator_hidden,
        activation=config.activation,
        pairwise=config.pairwise,
        output_scale=config.output_scale,
    )
    num_variables = config.engine.num_variables
    if config.network == "convolutional":
        width = num_variables // config.height
        return convolution.GridPotentials(config.height, width, **options)
    return mlp.PairwisePotentials(num_variables, num_factors=config.engine.num_factors, **options)


def _discriminator(config):
    options = dict(hidden=config.discriminator_hidden, activation=config.activation)
    if config.network == "convolutional":
        return convolution.ImageCritic(config.height, **options)
    return mlp.SequenceCritic(window=config.window, **options)


def _condition(config, z, length):
    """The generator's input: the noise, and the length where examples differ in it."""
    if not config.variable_length:
        return z
    return jnp.concatenate([z, jax.nn.one_hot(length - 1, config.engine.num_variables)])


def _optimizer(config, rate) -> optax.GradientTransformation:
    return optax.sgd(rate) if config.optimizer == "sgd" else optax.adam(rate, b1=0.5)


_CHOICES: dict[str, tuple[str, ...]] = {
    "network": ("dense", "convolutional"),
    "noise": ("uniform", "normal"),
    "activation": tuple(mlp.ACTIVATIONS),
    "discriminator_input": ("marginals", "straight_through"),
    "gradient": ("product", "jacobian", "conditioning"),
    "loss": tuple(adversarial.GENERATOR_LOSSES),
    "optimizer": ("sgd", "adam"),
}
