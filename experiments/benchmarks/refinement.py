"""Gradient inference and training of ALEN: one compiled loop, a loop of compiled steps, PyTorch.

    python -m experiments.benchmarks.refinement [--peers] [--rounds=15]

Prints Markdown tables. `--peers` needs the `benchmarks` extra (PyTorch), whose networks have the
same parameters: how far its refined outputs are from ours is printed, too. Inputs and parameters
are random: times do not depend on them. float32. About 2 minutes on 2 CPU cores.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import flags

from experiments.benchmarks import timing
from gasn_jax.energy import gradient_inference
from gasn_jax.learning.relaxed_outputs import RelaxedOutputs
from gasn_jax.nn import multi_label, segmentation
from gasn_jax.systems import alen

NUM_STEPS, STEP_SIZE = 20, 0.3
NUM_FEATURES, NUM_LABELS, SIDE, CHANNELS = 1836, 159, 32, (24, 48, 48)


@dataclasses.dataclass(frozen=True)
class Case:
    """A kind of problem, at the paper's width where it has one (labels), else at narrow ones."""

    name: str
    config: alen.ALENConfig
    x: jax.Array
    y: jax.Array


def cases() -> list[Case]:
    """Labels as in Bibtex, and masks as in the Weizmann horses."""
    key = jax.random.key(0)

    def case(name, network: nn.Module, value: nn.Module, batch, x_shape, y_shape, oracle, unroll):
        config = alen.ALENConfig(
            network=network,
            value=value,
            outputs=RelaxedOutputs("binary", oracle),
            ascent=gradient_inference.Ascent(NUM_STEPS, STEP_SIZE, normalize=True, unroll=unroll),
        )
        x = jax.random.normal(key, (batch, *x_shape))
        y = jnp.float32(jax.random.bernoulli(key, 0.2, (batch, *y_shape)))
        return Case(name, config, x, y)

    return [
        case(
            "1836 features, 159 labels, batch 64",
            multi_label.LabelNetwork(NUM_LABELS),
            multi_label.LabelValue(NUM_LABELS),
            *(64, (NUM_FEATURES,), (NUM_LABELS,), "f1", False),
        ),
        case(
            "masks of 32 x 32, 24 channels, batch 16",
            segmentation.SegmentationNetwork(CHANNELS),
            segmentation.SegmentationValue(CHANNELS),
            *(16, (SIDE, SIDE, 3), (SIDE, SIDE), "iou", True),
        ),
    ]


def calls(
    case: Case, state: alen.ALENState
) -> tuple[dict[str, Callable[[], Any]], dict[str, Callable[[], Any]]]:
    """What is timed of a case: refinements of a batch, and training steps."""

    @jax.jit
    def refine(state, x):
        return jax.vmap(
            lambda one: alen.predict(case.config, state, one, num_steps=NUM_STEPS).refined.y
        )(x)

    value = case.config.value
    conditions = hasattr(value, "condition")

    @jax.jit
    def start(state, x):
        """The proposals, and what of their values depends on x alone."""
        found = jax.vmap(lambda one: alen.predict(case.config, state, one, num_steps=0).refined.y)
        if not conditions:
            return found(x), x
        return found(x), jax.vmap(lambda one: value.apply(state.value, one, method="condition"))(x)

    @jax.jit
    def one_step(state, given, y):
        def value_fn(given, y):
            method = "value" if conditions else None
            return jax.nn.sigmoid(value.apply(state.value, given, y, method=method))

        gradient = jax.vmap(jax.grad(value_fn, argnums=1))(given, y)
        direction = jax.vmap(gradient_inference.normalized)(gradient)
        return gradient_inference.box(y + STEP_SIZE * direction)

    def step_by_step():
        y, given = start(state, case.x)
        for _ in range(NUM_STEPS):
            y = one_step(state, given, y)
        return y

    step = jax.jit(lambda *args: alen.train_step(case.config, *args))
    refinements = {
        "gasn_jax, one program": lambda: refine(state, case.x),
        "gasn_jax, a program a step": step_by_step,
    }
    return refinements, {"gasn_jax": lambda: step(state, case.x, case.y, jax.random.key(2))}


def main() -> None:
    refinement_rows, training_rows, differences = [], [], []
    for case in cases():
        state = alen.init(case.config, jax.random.key(1), case.x[0], case.y[0])
        refinements, steps = calls(case, state)
        if flags.FLAGS.peers:
            from experiments.benchmarks import refinement_peers

            peer = refinement_peers.Peer(case, state)
            ours, theirs = refinements["gasn_jax, one program"](), peer.refine().numpy()
            differences.append([case.name, f"{jnp.abs(ours - theirs).max():.1e}"])
            refinements["PyTorch"], steps["PyTorch"] = peer.refine, peer.train_step
        times = timing.rounds(refinements, num_rounds=flags.FLAGS.rounds)
        for name, seconds in times.items():
            ratio = seconds / times["gasn_jax, one program"]
            refinement_rows.append([case.name, name, f"{1e3 * seconds:.1f}", f"{ratio:.1f}"])
        times = timing.rounds(steps, num_rounds=flags.FLAGS.rounds)
        for name, seconds in times.items():
            ratio = seconds / times["gasn_jax"]
            rate = f"{len(case.x) / seconds:.0f}"
            training_rows.append([case.name, name, f"{1e3 * seconds:.1f}", rate, f"{ratio:.1f}"])
    print(f"### Refinement: {NUM_STEPS} steps\n")
    print(timing.table(["", "", "ms", "ratio"], refinement_rows))
    print(f"\n### Training: a step of both networks, {NUM_STEPS} refinements\n")
    print(timing.table(["", "", "ms", "examples a second", "ratio"], training_rows))
    if differences:
        print("\n### Refined outputs: largest difference to PyTorch's\n")
        print(timing.table(["", "difference"], differences))


if __name__ == "__main__":
    flags.DEFINE_bool("peers", False, "Run PyTorch too.")
    flags.DEFINE_integer("rounds", 15, "Timed rounds.", lower_bound=1)
    timing.run(main)
