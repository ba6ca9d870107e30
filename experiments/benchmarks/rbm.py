"""Restricted Boltzmann machines: learning against scikit-learn, Gibbs sampling against THRML.

    python -m experiments.benchmarks.rbm [--peers] [--epochs=10] [--rounds=5]

Prints Markdown tables. Needs binarized MNIST (`GASN_DATA`, see `gasn_jax.data.binarized_mnist`);
`--peers` needs the `benchmarks` extra (scikit-learn comes with it, THRML). About 25 minutes on 2
CPU cores. float32 but where said: float64 is what scikit-learn makes of bytes.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from experiments import rbm as experiment
from experiments.benchmarks import timing
from gasn_jax.data import binarized_mnist
from gasn_jax.energy import annealed_importance as ais
from gasn_jax.energy import contrastive_divergence, gibbs
from gasn_jax.energy import rbm as rbms

# Hidden units, batch size and learning rate: scikit-learn's defaults, also with as many units as
# the experiment has, and the experiment's.
SETTINGS = ((256, 10, 0.1), (500, 10, 0.1), (500, 100, 0.05))
AVERAGE_DECAY = 0.999
SPINS, NUM_SWEEPS = rbms.RBM(392, 100), 100


def main() -> None:
    title = "Learning: 784 pixels, 50000 digits, persistent chains"
    print(f"### {title}\n\n{learning_table(flags.FLAGS.epochs, flags.FLAGS.peers)}\n", flush=True)
    title = f"Sampling: {NUM_SWEEPS} Gibbs sweeps, 392 x 100 spins"
    print(f"### {title}\n\n{sampling_table(flags.FLAGS.rounds, flags.FLAGS.peers)}", flush=True)


def learning_table(num_epochs: int, peers: bool) -> str:
    """Seconds of an epoch (the median; of scikit-learn the mean), and the likelihood after all."""
    data = binarized_mnist.load()
    rows = []
    for num_hidden, batch_size, rate in SETTINGS:
        setting = num_hidden, batch_size, rate, num_epochs
        learners = {"gasn_jax": _learn(data.train, *setting)}
        if peers:
            for dtype in ("float64", "float32"):
                learners[f"scikit-learn, {dtype}"] = _learn_with_sklearn(
                    data.train, *setting, dtype
                )
        for name, (seconds, params) in learners.items():
            found = _evaluate(params, data.test, data.train)
            low, high = found["interval"]
            ratio = seconds / learners["gasn_jax"][0]
            nats = f"{found['log_likelihood']:.1f} ({low:.1f} to {high:.1f})"
            machine = f"{num_hidden}, {batch_size}, {rate}"
            rows.append([machine, name, f"{seconds:.2f}", f"{ratio:.1f}", nats])
    likelihood = f"test log-likelihood after {num_epochs} epochs, nats (95 %)"
    return timing.table(["hidden, batch, rate", "", "seconds an epoch", "ratio", likelihood], rows)


def sampling_table(num_rounds: int, peers: bool) -> str:
    """Milliseconds of one chain and of many at once, and whether the ends are alike."""
    weights_key, bias_key = jax.random.split(jax.random.key(0))
    params = rbms.init(weights_key, SPINS, scale=0.1)
    params["visible_bias"] = 0.1 * jax.random.normal(bias_key, (SPINS.num_visible,))
    rows = []
    for num_chains in (1, 100):
        calls = {"gasn_jax": _sampler(params, num_chains)}
        if peers:
            from experiments.benchmarks import rbm_peers

            calls["THRML"] = rbm_peers.thrml_sampler(params, num_chains, NUM_SWEEPS)
        times = timing.rounds(calls, num_rounds=num_rounds, num_warmup=1)
        for name, seconds in times.items():
            ratio = seconds / times["gasn_jax"]
            energies = jax.vmap(lambda v: rbms.free_energy(params, SPINS, v))(calls[name]())
            spread = f"{jnp.mean(energies):.1f} ± {jnp.std(energies) / num_chains**0.5:.1f}"
            rows.append([num_chains, name, f"{1e3 * seconds:.2f}", f"{ratio:.1f}", spread])
    return timing.table(["chains", "", "ms", "ratio", "free energy at the ends"], rows)


def _learn(train, num_hidden, batch_size, rate, num_epochs):
    """The median seconds of an epoch, and the running mean of the parameters after all."""
    rbm = rbms.RBM(train.shape[1], num_hidden, "binary", "binary")
    num_batches = len(train) // batch_size

    @jax.jit
    def epoch(key, params, average, chains):
        def step(carry, inputs):
            params, average, chains = carry
            key, batch = inputs
            found = contrastive_divergence.gradient(
                key, params, rbm, batch.astype(jnp.float32), chains=chains
            )
            params = jax.tree.map(lambda p, g: p - rate * g, params, found.gradient)
            average = optax.incremental_update(params, average, 1 - AVERAGE_DECAY)
            return (params, average, found.chains), None

        batches = train[: num_batches * batch_size].reshape(num_batches, batch_size, -1)
        keys = jax.random.split(key, num_batches)
        return jax.lax.scan(step, (params, average, chains), (keys, jnp.asarray(batches)))[0]

    key = jax.random.key(0)
    params = rbms.init(key, rbm)
    state = params, params, gibbs.State(jnp.zeros((batch_size, rbm.num_visible)))
    compiled = epoch.lower(key, *state).compile()
    seconds = []
    for number in range(num_epochs):
        start = time.perf_counter()
        state = jax.block_until_ready(compiled(jax.random.fold_in(key, number), *state))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), state[1]


def _learn_with_sklearn(train, num_hidden, batch_size, rate, num_epochs, dtype):
    from sklearn.neural_network import BernoulliRBM

    options = dict(batch_size=batch_size, learning_rate=rate, random_state=0)
    model = BernoulliRBM(num_hidden, n_iter=num_epochs, **options)
    digits = np.asarray(train, dtype)
    start = time.perf_counter()
    model.fit(digits)
    seconds = (time.perf_counter() - start) / num_epochs
    return seconds, {
        "weights": jnp.asarray(model.components_.T, jnp.float32),
        "visible_bias": jnp.asarray(model.intercept_visible_, jnp.float32),
        "hidden_bias": jnp.asarray(model.intercept_hidden_, jnp.float32),
    }


def _evaluate(params, test, train):
    config = experiment.Config(num_hidden=params["hidden_bias"].size)
    base_bias = ais.base_rates(config.machine(), jnp.asarray(train, jnp.float32))
    return experiment.evaluate(config, params, base_bias, np.asarray(test, np.float32))


def _sampler(params, num_chains):
    @jax.jit
    @jax.vmap
    def run(key):
        start_key, key = jax.random.split(key)
        state = gibbs.init(start_key, params, SPINS)
        return gibbs.run(key, state, params, SPINS, num_steps=NUM_SWEEPS)[0].v

    keys = jax.random.split(jax.random.key(1), num_chains)
    return lambda: run(keys)


if __name__ == "__main__":
    flags.DEFINE_bool("peers", False, "Run scikit-learn's BernoulliRBM and THRML too.")
    flags.DEFINE_integer("epochs", 10, "Of learning.", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "Timed rounds of sampling.", lower_bound=1)
    timing.run(main)
