"""The RBM on digits: its likelihood against the exact one, its files, and what it refuses."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import rbm
from gasn_jax.data import binarized_mnist
from gasn_jax.energy import rbm as rbms
from tests import command_line

TINY = rbm.Config(
    num_steps=300, log_every=100, num_hidden=8, batch_size=20, num_chains=20,
    learning_rate=0.02, num_ais_chains=30, num_ais_steps=200,
)  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Images of two kinds, with a little noise."""
    rng = np.random.default_rng(0)
    kinds = np.zeros((2, 28, 28), np.uint8)
    kinds[0, 5:20, 8:20] = kinds[1, 12:26, 3:15] = 1

    def part(count):
        noise = rng.random((count, 28, 28)) < 0.02
        return (kinds[rng.integers(0, 2, count)] ^ noise).reshape(count, -1)

    path = tmp_path_factory.mktemp("data")
    parts = binarized_mnist.BinarizedMNIST(part(200), part(30), part(40))
    binarized_mnist.write_npz(parts, path / "binarized_mnist" / "binarized_mnist_packed.npz")
    return str(path)


@pytest.mark.slow
def test_it_learns_is_told_its_likelihood_and_resumes(tmp_path, data_dir):
    config = dataclasses.replace(TINY, data_dir=data_dir)
    found = rbm.train(config, tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == found
    assert found["interval"][0] < found["log_likelihood"] < found["interval"][1]
    pixels = binarized_mnist.load(data_dir)
    rate = np.clip(pixels.train.mean(axis=0), 0.01, 0.99)
    alone = np.where(pixels.test, np.log(rate), np.log1p(-rate)).sum(axis=1).mean()
    assert found["log_likelihood"] > alone + 20
    for name in ("filters.png", "samples.png", "curves.png"):
        assert (tmp_path / name).stat().st_size > 1000
    assert rbm.train(config, tmp_path) == found


@pytest.mark.slow
def test_both_estimates_hold_the_exact_value():
    rng = np.random.default_rng(0)
    config = dataclasses.replace(TINY, num_ais_chains=200, num_ais_steps=500)
    w, b, c = 0.1 * rng.normal(size=(784, 8)), rng.normal(size=784) - 1, rng.normal(size=8)
    names = ("weights", "visible_bias", "hidden_bias")
    params = {name: jnp.asarray(x, jnp.float32) for name, x in zip(names, (w, b, c), strict=True)}
    # Samples of the machine itself, by enumeration of its hidden units.
    h = (np.arange(256)[:, None] >> np.arange(8)) & 1
    score = h @ c + np.logaddexp(0, h @ w.T + b).sum(axis=1)
    p = np.exp(score - np.logaddexp.reduce(score))
    mean = 1 / (1 + np.exp(-(h[rng.choice(256, size=200, p=p / p.sum())] @ w.T + b)))
    held_out = (rng.random(mean.shape) < mean).astype(np.float32)
    base = jnp.asarray(np.log(mean.mean(0) / (1 - mean.mean(0))), jnp.float32)
    found = rbm.evaluate(config, params, base, held_out)
    exact = float(rbms.log_likelihood(params, config.machine(), jnp.asarray(held_out)))
    assert abs(found["log_likelihood"] - exact) < 4 * found["standard_error"]
    assert abs(found["reverse_log_likelihood"] - exact) < 0.5
    assert found["effective_sample_size"] > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.num_hidden=0"], "num_hidden: wanted >= 1, got 0"),
        (["--config.learning_rate=0.0"], "learning_rate: wanted > 0, got 0.0"),
        (["--config.held_out=train"], "held_out: wanted test or validation, got 'train'"),
        (["--config.num_ais_chains=1"], "num_ais_chains: wanted >= 2, got 1"),
        (["--config.average_decay=1.0"], "average_decay: wanted in [0, 1), got 1.0"),
        (["--config.data_dir=/nowhere"], "binarized_mnist_packed.npz not found in /nowhere"),
    ],
)
def test_bad_flags_are_one_line(tmp_path, capsys, arguments, message):
    workdir = f"--workdir={tmp_path / 'run'}"
    assert command_line.outcome(rbm.train, rbm.Config(), [workdir, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
