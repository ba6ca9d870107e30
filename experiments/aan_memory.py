"""How well can a memory know the features of an AAN? Held-out likelihoods over its settings.

    python -m experiments.aan_memory --workdir=DIR

trains an AAN on MNIST and fixes its discriminator. Spins drawn from the features F(x) of training
digits then train restricted Boltzmann machines of several sizes by contrastive divergence, of
several numbers of Gibbs steps and learning rates, and the table tells how likely each finds the
spins of held-out digits: nats a digit by annealed importance sampling with its 95 % interval, by
the reverse estimate, exactly where the hidden units can be enumerated, and by independent units.

100 features, one seed, test digits, with 95 % intervals; independent units have -61.68 nats, and
the memory that was trained jointly with the AAN (100 hidden units, CD-2, rate 0.001) -55.28 +- .04:

| hidden units | rate  | CD-1          | CD-2          | CD-10         |
|--------------|-------|---------------|---------------|---------------|
| 16           | 0.001 | -49.71 +- .06 | -49.51 +- .04 | -49.38 +- .03 |
| 16           | 0.01  | -49.39 +- .06 | -49.33 +- .04 | -49.24 +- .03 |
| 100          | 0.001 | -48.34 +- .03 | -48.26 +- .03 | -48.23 +- .04 |
| 100          | 0.01  | -48.43 +- .04 | -48.77 +- .04 | -48.29 +- .04 |
| 400          | 0.001 | -48.58 +- .04 | -48.41 +- .03 | -48.34 +- .03 |
| 400          | 0.01  | -48.38 +- .05 | -48.28 +- .03 | -48.26 +- .03 |

Reverse estimates lie in the intervals but for two, which are outside by less than 0.03; the exact
numbers of 16 units lie in them. So a machine can know much more than the single features, more
hidden units than features add nothing, and the paper's two steps at 0.001 are within 0.03 nats of
the best; but the memory of the AAN, whose features move while it learns, is 7 nats behind. Time: 13
minutes on one CPU core beside other work.

1000 features (`--config.num_visible=1000 "--config.num_hidden=(16,100,1000)"`, 90 minutes on one
core beside other work), exactly for 16 hidden units; independent units have -643.9 nats:

| hidden units    | rate  | CD-1   | CD-2    | CD-10   |
|-----------------|-------|--------|---------|---------|
| 16, exactly     | 0.001 | -513.6 | -506.9  | -498.8  |
| 16, exactly     | 0.01  | -506.2 | -501.4  | -489.9  |
| 100, annealing  | 0.001 | (-463) | (-459)  | (-454)  |
| 100, annealing  | 0.01  | (-460) | (-456)  | (-456)  |
| 1000, annealing | 0.001 | (-461) | (-456)  | (-451)  |
| 1000, annealing | 0.01  | -467.7 | (-465)  | (-796)  |

Numbers in brackets are those whose `reliable` is False, and they mean little: of 16 hidden units
annealing says -476 where -513.6 is true, and still -495 instead of -506.9 with 20 times the
temperatures. The features of a digit hang together so strongly that the chains miss modes of the
machine. The one that stands without brackets has an interval of 0.5 or less to either side and the
reverse estimate -467.3, and need not be nearer to the truth for it; of its neighbour the two
estimates are 2.8 nats apart. CD-10 at rate 0.01 diverges with 1000 hidden units.

Files: `study.csv`, `likelihood.png` (exact numbers and reliable estimates) with its CSV, and the
folders of the runs.
"""

import csv
import dataclasses
import math
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from experiments import aan, common, images
from gasn_jax.energy import annealed_importance as ais
from gasn_jax.energy import contrastive_divergence
from gasn_jax.energy import rbm as rbms
from gasn_jax.learning import descent
from gasn_jax.systems import aan as systems
from gasn_jax.training import loop, pictures
from gasn_jax.training.errors import require

# Hidden units up to which the likelihood is also computed exactly.
_MOST_EXACT = 16
_CHUNK = 1000
_JOINTLY = "with the AAN"


@dataclasses.dataclass(frozen=True)
class Config(loop.LoopConfig):
    # Training steps of each machine.
    num_steps: int = 5000
    log_every: int = 1000
    checkpoint_every: int = 5000
    # Folder that holds mnist/; empty for the environment variable GASN_DATA, then ../shared/data.
    data_dir: str = ""
    # The part whose likelihood is estimated: test, or validation.
    held_out: str = "test"
    # Training steps of the AAN.
    num_aan_steps: int = 5000
    # Features of its discriminator: visible units of every machine.
    num_visible: int = 100
    # Hidden units, Gibbs steps and learning rates that are tried, each with each.
    num_hidden: tuple[int, ...] = (16, 100, 400)
    num_gibbs_steps: tuple[int, ...] = (1, 2, 10)
    learning_rates: tuple[float, ...] = (0.001, 0.01)
    # Momentum.
    momentum: float = 0.8
    # Digits of each step.
    batch_size: int = 256
    # Chains and temperatures of the annealed importance sampling.
    num_ais_chains: int = 200
    num_ais_steps: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self.held_out in ("test", "validation")
        require(known, "held_out", "test or validation", self.held_out)
        # One chain has no error bar.
        least = dict(num_visible=1, batch_size=1, num_ais_chains=2, num_ais_steps=1)
        for name, count in least.items():
            require(getattr(self, name) >= count, name, f">= {count}", getattr(self, name))
        for name in ("num_hidden", "num_gibbs_steps", "learning_rates"):
            values = getattr(self, name)
            known = len(values) > 0 and all(0 < value < math.inf for value in values)
            require(known, name, "numbers > 0", values)
            require(len(set(values)) == len(values), name, "each number once", values)
        require(0 <= self.momentum < 1, "momentum", "in [0, 1)", self.momentum)

    def aan(self) -> aan.Config:
        """Returns the config of the AAN."""
        return aan.Config(
            seed=self.seed,
            num_steps=self.num_aan_steps,
            data_dir=self.data_dir,
            num_visible=self.num_visible,
            num_hidden=self.num_visible,
        )

    def runs(self) -> list["_Run"]:
        """Returns the config of every machine."""
        return [
            _Run(
                self.seed,
                self.num_steps,
                self.log_every,
                self.checkpoint_every,
                self.batch_size,
                self.momentum,
                size,
                num_steps,
                rate,
            )
            for size in self.num_hidden
            for num_steps in self.num_gibbs_steps
            for rate in self.learning_rates
        ]


@dataclasses.dataclass(frozen=True)
class _Run(loop.LoopConfig):
    """One machine."""

    batch_size: int = 256
    momentum: float = 0.8
    num_hidden: int = 100
    num_gibbs_steps: int = 2
    learning_rate: float = 0.001

    @property
    def name(self) -> str:
        return f"{self.num_hidden}-hidden-{self.num_gibbs_steps}-steps-{self.learning_rate}"


def train(config: Config, directory: str) -> list[dict[str, Any]]:
    """Trains (or restores) the AAN and every machine; returns and writes the table's rows."""
    run = config.aan()
    state = aan.train(run, os.path.join(directory, "aan"))
    real = aan.load(run)
    key = jax.random.key(config.seed)
    spins = _spins(run, state, key, real.train)
    held_out = _spins(run, state, jax.random.fold_in(key, 1), getattr(real, config.held_out))
    base_bias = ais.base_rates(rbms.RBM(config.num_visible, 1), jnp.asarray(spins, jnp.float32))
    alone = float(np.mean(np.sum(jax.nn.log_sigmoid(2 * held_out * np.asarray(base_bias)), axis=1)))
    logging.info("independent units: %.2f nats", alone)
    joint = dataclasses.replace(
        config.runs()[0],
        num_hidden=run.num_hidden,
        num_gibbs_steps=run.num_gibbs_steps,
        learning_rate=run.memory_rate,
    )
    rows = [_row(config, joint, state.memory, held_out, base_bias) | {"trained": _JOINTLY}]
    logging.info("%s", rows[-1])
    for one in config.runs():
        params = _train_one(config, one, os.path.join(directory, one.name), spins, base_bias)
        rows.append(_row(config, one, params, held_out, base_bias))
        logging.info("%s", rows[-1])
        if not rows[-1]["reliable"]:
            logging.warning("%s: not reliable; take more chains or temperatures", one.name)
    _save(directory, rows, alone)
    return rows


def _spins(run, state, key, pixels):
    """Spins drawn from the features of images, int8 [M, V]."""
    system = run.system()

    @jax.jit
    def drawn(key, pixels):
        features = jax.vmap(lambda x: systems.discriminate(system, state.discriminator, x)[0])(
            images.scaled(pixels)
        )
        return systems.clamp(system, key, features).astype(jnp.int8)

    chunks = range(0, len(pixels), _CHUNK)
    return np.concatenate(
        [drawn(jax.random.fold_in(key, i), pixels[i : i + _CHUNK]) for i in chunks]
    )


def _machine(config, one):
    return rbms.RBM(config.num_visible, one.num_hidden)


def _train_one(config, one, folder, spins, base_bias):
    rbm = _machine(config, one)
    optimizer = optax.sgd(one.learning_rate, momentum=one.momentum)

    def init_fn(key):
        params = rbms.init(key, rbm) | {"visible_bias": base_bias}
        return {"params": params, "optimizer": optimizer.init(params)}

    def batch_fn(data, key):
        return data[jax.random.randint(key, (one.batch_size,), 0, data.shape[0])]

    def step_fn(state, batch, key):
        v = batch.astype(jnp.float32)
        found = contrastive_divergence.gradient(
            key, state["params"], rbm, v, num_steps=one.num_gibbs_steps
        )
        params, optimizer_state = descent.step(
            optimizer, found.gradient, state["optimizer"], state["params"]
        )
        free_energy = jax.vmap(lambda v: rbms.free_energy(state["params"], rbm, v))
        gap = jnp.mean(free_energy(v)) - jnp.mean(free_energy(found.chains.v))
        return {"params": params, "optimizer": optimizer_state}, {"free_energy_gap": gap}

    state = loop.train(one, folder, init_fn=init_fn, step_fn=step_fn, batch_fn=batch_fn, data=spins)
    return state["params"]


def _row(config, one, params, held_out, base_bias):
    rbm, key = _machine(config, one), jax.random.key(config.seed)
    options = dict(num_chains=config.num_ais_chains, num_steps=config.num_ais_steps)

    @jax.jit
    def likelihood(params, v):
        return ais.rbm_log_likelihood(key, params, rbm, v, base_visible_bias=base_bias, **options)

    v = jnp.asarray(held_out, jnp.float32)
    found = likelihood(params, v)
    low, high = found.interval()
    exact = float("nan")
    if one.num_hidden <= _MOST_EXACT:
        exact = float(jax.jit(lambda params, v: rbms.log_likelihood(params, rbm, v))(params, v))
    return {
        "trained": "on fixed features",
        "num_hidden": one.num_hidden,
        "num_gibbs_steps": one.num_gibbs_steps,
        "learning_rate": one.learning_rate,
        "log_likelihood": float(found.log_likelihood),
        "low": float(low),
        "high": float(high),
        "reverse_log_likelihood": float(found.reverse_log_likelihood),
        "exact": exact,
        "reliable": bool(found.reliable),
    }


def _save(directory, rows, alone):
    with open(os.path.join(directory, "study.csv"), "w", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        writer.writerow({"num_hidden": 0, "log_likelihood": alone, "exact": alone})
    curves: dict[str, Any] = {}
    fixed = [row for row in rows if row["trained"] != _JOINTLY]
    for row in fixed:
        name = f"{row['num_gibbs_steps']} steps, rate {row['learning_rate']}"
        curves.setdefault(name, []).append(_shown(row))
    pictures.save_curves(
        os.path.join(directory, "likelihood.png"),
        np.array(list(dict.fromkeys(row["num_hidden"] for row in fixed))),
        {name: tuple(np.transpose(values)) for name, values in curves.items()},
        xlabel="hidden units",
        ylabel="held-out log-likelihood, nats",
        title="Exact, or a reliable estimate; gaps are the others",
        logx=True,
    )


def _shown(row):
    """What the picture has of a row, and the lower and upper edge of its interval."""
    if np.isfinite(row["exact"]):
        return 3 * [row["exact"]]
    shown = [row[name] for name in ("log_likelihood", "low", "high")]
    return shown if row["reliable"] else 3 * [np.nan]


if __name__ == "__main__":
    common.run(train, Config())
