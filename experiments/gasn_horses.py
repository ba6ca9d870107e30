"""Horses: do pairwise scores help a GASN to paint masks in one piece?

    python -m experiments.gasn_horses --workdir=DIR

learns the 160 training masks of the Weizmann horses, 32x32 pixels, with convolutional players. The
generator paints the scores of a grid with 4 neighbours, whose beliefs are those of tree-reweighted
belief propagation; or, beside it, only the scores of single pixels. The discriminator sees samples
(with the gradient of the beliefs, "straight-through"), or the beliefs themselves. NUMBERS
"""

import dataclasses

from experiments import common, gasn, gasn_study
from gasn_jax.training import loop
from gasn_jax.training.errors import require

ARMS = {
    "grid": {},
    "no structure": dict(pairwise=False),
    "grid, marginals": dict(discriminator_input="marginals"),
    "no structure, marginals": dict(pairwise=False, discriminator_input="marginals"),
}


@dataclasses.dataclass(frozen=True)
class Config(loop.LoopConfig):
    # Training steps of each model.
    num_steps: int = 2000
    checkpoint_every: int = 500
    # Folder that holds weizmann_horses/; empty for the environment variable GASN_DATA, then
    # ../shared/data.
    data_dir: str = ""
    # The part that samples are compared with: test, or validation, on which settings were chosen.
    held_out: str = "test"
    # Models of each arm, of the seeds `seed`, `seed + 1`, ...
    num_seeds: int = 3
    # Real masks, and as many generated ones, in each step.
    batch_size: int = 16
    # Masks that are drawn from each model to be compared.
    num_eval_samples: int = 256
    # Size of the noise vector z.
    noise_dim: int = 32
    # Channels of the generator's layers, each of twice the height and width.
    generator_hidden: tuple[int, ...] = (64, 64, 32, 16)
    # Channels of the discriminator's, each of half.
    discriminator_hidden: tuple[int, ...] = (32, 64, 64)
    # Weight of the R1 penalty in the discriminator's loss.
    r1: float = 30.0
    # Adam's learning rates.
    discriminator_rate: float = 1e-3
    generator_rate: float = 1e-3
    # The generator's where the discriminator sees marginals: faster ones saturate them for good.
    marginals_generator_rate: float = 5e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.runs()

    def runs(self) -> dict[str, gasn.Config]:
        """Returns every arm's config; its ValueError names the field that is out of range."""
        shared = dataclasses.asdict(self) | dict(
            dataset="horses",
            structure="grid",
            inference="belief_propagation",
            network="convolutional",
        )
        del shared["marginals_generator_rate"]
        rate = self.marginals_generator_rate
        require(rate > 0, "marginals_generator_rate", "> 0", rate)
        own = {arm: {"generator_rate": rate} if "marginals" in arm else {} for arm in ARMS}
        return {arm: gasn.Config(**shared | ARMS[arm] | own[arm]) for arm in ARMS}


def train(config: Config, directory: str) -> gasn.Evaluation:
    """Trains (or restores) every model; then writes `study.csv` and `study.png`."""
    return gasn_study.run(config.runs(), directory)


if __name__ == "__main__":
    common.run(train, Config())
