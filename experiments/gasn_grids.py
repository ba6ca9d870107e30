"""Digits as grids: does a GASN gain from more neighbours, and from exact inference?

    python -m experiments.gasn_grids --workdir=DIR

The same networks learn the 8x8 digits with five models of their pixels: none (independent given
the noise), a chain in snake order, the Chow-Liu tree of the training part, and a grid with 4
neighbours, once with exact inference and once by convex (tree-reweighted) belief propagation, whose
samples are a few Gibbs sweeps. NUMBERS
"""

import dataclasses

from experiments import common, gasn, gasn_study
from gasn_jax.training import loop

ARMS = {
    "no structure": dict(pairwise=False),
    "chain": {},
    "tree": dict(structure="tree"),
    "grid, exact": dict(structure="grid"),
    "grid, belief propagation": dict(structure="grid", inference="belief_propagation"),
}


@dataclasses.dataclass(frozen=True)
class Config(loop.LoopConfig):
    # Training steps of each model.
    num_steps: int = 3000
    checkpoint_every: int = 1000
    # The part that samples are compared with: test, or validation, on which settings were chosen.
    held_out: str = "test"
    # Models of each arm, trained side by side from different random numbers.
    num_seeds: int = 5
    # Real examples, and as many generated ones, in each step.
    batch_size: int = 64
    # Examples that are drawn from each model to be compared.
    num_eval_samples: int = 1000
    # Size of the noise vector z.
    noise_dim: int = 32
    # Widths of the hidden layers.
    generator_hidden: tuple[int, ...] = (128, 128)
    discriminator_hidden: tuple[int, ...] = (256, 128)
    # Weight of the R1 penalty in the discriminator's loss.
    r1: float = 1.0
    # Adam's learning rates.
    discriminator_rate: float = 1e-3
    generator_rate: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.runs()

    def runs(self) -> dict[str, gasn.Config]:
        """Returns every arm's config; its ValueError names the field that is out of range."""
        shared = dataclasses.asdict(self)
        return {arm: gasn.Config(**shared, **fields) for arm, fields in ARMS.items()}


def train(config: Config, directory: str) -> gasn.Evaluation:
    """Trains (or restores) every arm; then writes `study.csv` and `study.png`."""
    return gasn_study.run(config.runs(), directory)


if __name__ == "__main__":
    common.run(train, Config())
