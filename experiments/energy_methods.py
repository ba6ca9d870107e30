"""The methods of the ALEN paper's tables behind one interface, and the networks they share."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments import structured_outputs
from gasn_jax.energy import gradient_inference
from gasn_jax.nn import multi_label, segmentation
from gasn_jax.systems import alen, dvn, inference_network, spen


class Found(NamedTuple):
    """A prediction of one input.

    Attributes:
      trajectory: relaxed outputs from the start of the ascent to its end, [T+1, ...]; [1, ...]
        without one.
      values: v of them, [T+1]; zero without a value network.
    """

    trajectory: jax.Array
    values: jax.Array


class Learner(NamedTuple):
    """A method with its settings.

    Attributes:
      system: the config of its module of :mod:`gasn_jax.systems`.
      init: (key, x, y) -> state.
      step: (state, x [m, ...], y [m, ...], key) -> (state, metrics).
      predict: (state, x, num_steps) -> :class:`Found`, of one input.
    """

    system: Any
    init: Callable[..., Any]
    step: Callable[..., Any]
    predict: Callable[..., Found]


def learner(config: Any) -> Learner:
    """The method that an `experiments.alen.Config` names."""
    return METHODS[config.method](config)


def _network(config, hidden=None):
    """The inference network of the data set's kind."""
    data = structured_outputs.DATASETS[config.dataset]
    if data.are_images:
        sizes = config.channels, config.skips, config.dropout_rate
        groups = config.group_size, config.group_rows
        return segmentation.SegmentationNetwork(*sizes, *groups, data.num_classes)
    hidden = (config.hidden,) if hidden is None else hidden
    return multi_label.LabelNetwork(
        data.y_shape[0], hidden, config.dropout_rate, config.initial_logit
    )


def _value(config):
    """The value network of the data set's kind."""
    if structured_outputs.DATASETS[config.dataset].are_images:
        sizes = config.value_channels, config.skips, config.value_dropout_rate
        groups = config.group_size, config.group_rows
        return segmentation.SegmentationValue(*sizes, *groups, config.energy)
    num_labels = structured_outputs.DATASETS[config.dataset].y_shape[0]
    return multi_label.LabelValue(
        num_labels, (config.value_hidden,), config.num_interactions, config.value_dropout_rate
    )


def _outputs(config):
    """The kind of y, and what it is valued by: pixel by pixel where the value network does so."""
    data = structured_outputs.DATASETS[config.dataset]
    if data.are_images and config.energy == "pixels":
        return dataclasses.replace(data.outputs, oracle="variable_f1")
    return data.outputs


def _ascent(config, **changes):
    options = dict(
        num_steps=config.num_ascent_steps,
        step_size=config.step_size,
        normalize=config.normalize,
        momentum=config.momentum,
        # convolutions' derivatives are slow inside a compiled loop on the CPU
        unroll=config.data.are_images and jax.default_backend() == "cpu",
    )
    return gradient_inference.Ascent(**options | changes)


def _feed_forward(hidden=None):
    """A network that learns by cross-entropy alone."""

    def make(config):
        return _inference_network(
            inference_network.InferenceNetworkConfig(
                network=_network(config, hidden),
                outputs=_outputs(config),
                network_rate=config.network_rate,
                network_decay=config.network_decay,
            )
        )

    return make


def _inference_network(system):
    def predict(state, x, num_steps):
        del num_steps
        y = inference_network.predict(system, state, x)
        return Found(y[None], jnp.zeros(1))

    return _bound(inference_network, system, predict)


def _adversarial_network(config):
    return _inference_network(
        inference_network.InferenceNetworkConfig(
            network=_network(config),
            value=_value(config),
            outputs=_outputs(config),
            cost_weight=config.cost_weight,
            adversarial_weight=config.adversarial_weight,
            num_joint_steps=round(config.joint_share * config.num_steps),
            network_rate=config.network_rate,
            value_rate=config.value_rate,
            network_decay=config.network_decay,
            value_decay=config.value_decay,
        )
    )


def _spen(loss):
    def make(config):
        data = structured_outputs.DATASETS[config.dataset]
        system = spen.SPENConfig(
            value=_value(config),
            outputs=_outputs(config),
            loss=loss,
            ascent=_ascent(config),
            cost_weight=config.cost_weight,
            num_unary_steps=round(config.unary_share * config.num_steps),
            value_rate=config.value_rate,
            value_decay=config.value_decay,
        )

        def predict(state, x, num_steps):
            like = jnp.zeros(data.y_shape)
            found = spen.predict(system, state, x, like, num_steps=num_steps)
            return Found(found.trajectory, found.values)

        return _bound(spen, system, predict)

    return make


def _dvn(config):
    data = structured_outputs.DATASETS[config.dataset]
    system = dvn.DVNConfig(
        value=_value(config),
        outputs=_outputs(config),
        ascent=_ascent(config),
        true_share=config.true_share,
        adversarial_share=config.adversarial_share,
        num_adversarial_steps=config.num_adversarial_steps,
        constant_oracle=config.constant_oracle,
        value_rate=config.value_rate,
        value_decay=config.value_decay,
    )

    def predict(state, x, num_steps):
        # a mask is as large as its image, which may be a crop
        side = x.shape[:2] if data.are_images else ()
        start = data.outputs.initial(jnp.zeros(side + data.y_shape[len(side) :]))
        found = dvn.predict(system, state, x, start, num_steps=num_steps)
        return Found(found.trajectory, found.values)

    return _bound(dvn, system, predict)


def _alen(**changes):
    """ALEN, or an ablation: fields of its system that are changed."""

    def make(config):
        options: dict[str, Any] = dict(
            network=_network(config),
            value=_value(config),
            outputs=_outputs(config),
            ascent=_ascent(config),
            network_weight=config.network_weight,
            refined_weight=config.refined_weight,
            adversarial_weight=config.adversarial_weight,
            network_rate=config.network_rate,
            value_rate=config.value_rate,
            network_decay=config.network_decay,
            value_decay=config.value_decay,
        )
        system = alen.ALENConfig(**options | changes)

        def predict(state, x, num_steps):
            # a value network that learnt of true outputs alone has nothing to ascend on
            num_steps = num_steps if system.network_weight or system.refined_weight else 0
            refined = alen.predict(system, state, x, num_steps=num_steps).refined
            return Found(refined.trajectory, refined.values)

        return _bound(alen, system, predict)

    return make


def _bound(module, system, predict):
    def init(key, x, y):
        return module.init(system, key, x, y)

    def step(state, x, y, key):
        return module.train_step(system, state, x, y, key)

    return Learner(system, init, step, predict)


_ALONE = dict(network_weight=0.0, refined_weight=0.0, adversarial_weight=0.0)

# "network_alone" is the paper's "InfNet baseline", "feed_forward" its "two layer" or "FCN";
# "feed_forward_half" is the same with settings for a threshold of one half.
METHODS: dict[str, Callable[[Any], Learner]] = {
    "logistic": _feed_forward(hidden=()),
    "feed_forward": _feed_forward(),
    "feed_forward_half": _feed_forward(),
    "spen": _spen("structured_hinge"),
    "spen_end_to_end": _spen("end_to_end"),
    "inference_network": _adversarial_network,
    "dvn": _dvn,
    "network_alone": _alen(**_ALONE, ascent=gradient_inference.Ascent(num_steps=0)),
    "aen": _alen(refined_weight=0.0),
    "alen_no_task": _alen(surrogate_weight=0.0),
    "alen": _alen(),
}
