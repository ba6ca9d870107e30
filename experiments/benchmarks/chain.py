"""Speed, memory and precision of chain inference, against autodiff and against the peers.

    python -m experiments.benchmarks.chain [--peers] [--rounds=15]

Prints Markdown tables. All figures of a row come from calls made in random order in one process, as
medians; float32, compiled, batched with vmap. Memory is XLA's own plan for temporaries. `--peers`
needs the `benchmarks` extra (torch-struct and dynamax); torch-struct is left out where one of its
products would take more than 2 GB. About 1 minute on 2 CPU cores, 3 with peers.

"Autodiff" differentiates the very recursions that the library runs, without its gradient rule;
"log-alpha-beta" is the textbook pair of log-space recursions, differentiated the same way.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments.benchmarks import timing
from gasn_jax.structured import chain, markov

SIZES = ((64, 128, 32), (16, 512, 16), (8, 64, 128), (16, 128, 26))
COVARIANCE_SIZE, PRECISION_SIZE = (1, 128, 16), (64, 128, 32)

Arrays = Sequence[jax.Array]


def main() -> None:
    num_rounds = flags.FLAGS.rounds
    sections = [
        ("Gradient of <marginals, w>", gradient_table),
        ("Other operations", operations_table),
        ("Full covariance, N = {1}, L = {2}".format(*COVARIANCE_SIZE), covariance_table),
        (f"Float32 error against float64, {PRECISION_SIZE}", precision_table),
    ]
    if flags.FLAGS.peers:
        sections.append(("Peers", peers_table))
    for title, build in sections:
        print(f"### {title}\n\n{build(num_rounds)}\n", flush=True)


def gradient_table(num_rounds: int) -> str:
    """Forward, gradient by our rule, by autodiff of our recursions and of the textbook's."""
    rows = []
    for size in SIZES:
        arrays = random_arrays(size)
        gradients = {name: gradient(fn) for name, fn in MARGINALS.items()}
        calls = {
            "copy": bind(jax.jit(jnp.positive), arrays[1]),
            "forward": bind(jax.jit(jax.vmap(ours)), *arrays[:2]),
            **{name: bind(jax.jit(fn), *arrays) for name, fn in gradients.items()},
        }
        time = timing.rounds(calls, num_rounds=num_rounds)
        memory = {name: timing.temporary_bytes(fn, *arrays) for name, fn in gradients.items()}
        rows.append(
            [
                size,
                *(f"{1e3 * time[name]:.1f}" for name in calls),
                f"{time['ours'] / time['forward']:.2f}",
                f"{time['autodiff'] / time['ours']:.1f}",
                f"{time['log-alpha-beta'] / time['ours']:.1f}",
                " / ".join(f"{memory[name] / 1e6:.0f}" for name in gradients),
            ]
        )
    header = ["(batch, N, L)", "copy, ms", "forward", "gradient", "autodiff", "log-alpha-beta"]
    ratios = ["gradient / forward", "autodiff / gradient", "log-alpha-beta / gradient"]
    return timing.table([*header, *ratios, "temporary MB of the three"], rows)


def operations_table(num_rounds: int) -> str:
    """Samples and best sequences, each against its cheapest relative."""
    rows = []
    for size in SIZES:
        unary, pairwise = random_arrays(size)[:2]
        keys = jax.random.split(jax.random.key(0), size[0])

        def sampler(num_samples):
            draw = functools.partial(chain.sample, num_samples=num_samples)
            return jax.jit(jax.vmap(draw))

        def best(k):
            return jax.jit(jax.vmap(functools.partial(chain.top_k, k=k)))

        calls = {
            "log_partition": bind(jax.jit(jax.vmap(chain.log_partition)), unary, pairwise),
            "1 sample": bind(sampler(1), keys, unary, pairwise),
            "16 samples": bind(sampler(16), keys, unary, pairwise),
            "argmax": bind(jax.jit(jax.vmap(chain.argmax)), unary, pairwise),
            "top_k(8)": bind(best(8), unary, pairwise),
        }
        time = timing.rounds(calls, num_rounds=num_rounds)
        rows.append(
            [
                size,
                *(f"{1e3 * time[name]:.1f}" for name in calls),
                f"{time['16 samples'] / time['1 sample']:.2f}",
                f"{time['top_k(8)'] / time['argmax']:.2f}",
            ]
        )
    header = ["(batch, N, L)", "log_partition, ms", "1 sample", "16 samples", "argmax", "top_k(8)"]
    return timing.table([*header, "16 / 1 samples", "top_k(8) / argmax"], rows)


def covariance_table(num_rounds: int) -> str:
    """Algorithm 1 against the Jacobian by reverse mode, through our rule and through autodiff."""
    unary, pairwise = (x[0] for x in random_arrays(COVARIANCE_SIZE)[:2])

    def jacobian(marginals_fn):
        return jax.jit(jax.jacrev(lambda u, w: marginals_fn(u, w)[0], argnums=(0, 1)))

    def written(unary):
        shape = *unary.shape, *pairwise.shape
        return jnp.broadcast_to(unary[:, :, None, None, None], shape) + 1.0

    calls = {
        "covariance": bind(jax.jit(chain.covariance), unary, pairwise),
        "jacrev of marginals": bind(jacobian(ours), unary, pairwise),
        "jacrev of autodiff": bind(jacobian(autodiff), unary, pairwise),
        "writing an array of the result's size": bind(jax.jit(written), unary),
    }
    time = timing.rounds(calls, num_rounds=num_rounds)
    rows = [
        [name, f"{1e3 * time[name]:.0f}", f"{time[name] / time['covariance']:.1f}"]
        for name in calls
    ]
    return timing.table(["method", "ms", "ratio"], rows)


def precision_table(_: int) -> str:
    """Worst entry of marginals and gradient, jitted float32 against float64 of the same input."""
    arrays = random_arrays(PRECISION_SIZE)
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(x), jnp.float64) for x in arrays]
        exact = jax.jit(jax.vmap(ours))(*wide[:2])
        exact_gradient = jax.jit(gradient(ours))(*wide)
        exact, exact_gradient = jax.tree.map(np.asarray, (exact, exact_gradient))
    rows = []
    for name, marginals_fn in MARGINALS.items():
        values = jax.jit(jax.vmap(marginals_fn))(*arrays[:2])
        slopes = jax.jit(gradient(marginals_fn))(*arrays)
        rows.append([name, f"{worst(values, exact):.1e}", f"{worst(slopes, exact_gradient):.1e}"])
    return timing.table(["method", "worst marginal", "worst gradient entry"], rows)


def peers_table(num_rounds: int) -> str:
    """The same marginals, and the gradient of their product with w, by the peers."""
    from experiments.benchmarks import chain_peers

    rows = []
    for size in SIZES:
        arrays = random_arrays(size)
        calls = {
            "gasn_jax": bind(jax.jit(jax.vmap(ours)), *arrays[:2]),
            "gasn_jax, gradient": bind(jax.jit(gradient(ours)), *arrays),
            **chain_peers.dynamax_calls(*arrays),
        }
        time = timing.rounds(calls, num_rounds=num_rounds)
        # In rounds of its own: a call takes seconds, and leaves other memory than it found.
        slow = chain_peers.torch_struct_calls(*arrays)
        time |= timing.rounds(slow, num_rounds=max(1, num_rounds // 5), num_warmup=1)
        calls |= slow
        exact = np.asarray(calls["gasn_jax"]()[1])
        for name, call in calls.items():
            is_gradient = name.endswith("gradient")
            base = time["gasn_jax, gradient" if is_gradient else "gasn_jax"]
            error = worst(chain_peers.pairwise_of(call()), exact)
            row = [size, name, f"{1e3 * time[name]:.1f}", f"{time[name] / base:.1f}"]
            rows.append([*row, "" if is_gradient else f"{error:.0e}"])
    return timing.table(["(batch, N, L)", "library", "ms", "ratio", "marginals differ by"], rows)


def random_arrays(size: tuple[int, int, int]) -> list[jax.Array]:
    """Standard normal potentials and cotangents: unary, pairwise, w_unary, w_pairwise."""
    batch, num_variables, num_states = size
    rng = np.random.default_rng(0)
    unary = (batch, num_variables, num_states)
    pairwise = (batch, num_variables - 1, num_states, num_states)
    shapes = (unary, pairwise, unary, pairwise)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def ours(unary: jax.Array, pairwise: jax.Array) -> Arrays:
    """Unary and pairwise marginals by the library."""
    return chain.marginals(unary, pairwise)[1:]


def autodiff(unary: jax.Array, pairwise: jax.Array) -> Arrays:
    """The library's recursions, to be differentiated by JAX: its own rule left out."""
    result = markov.infer.fun(unary, pairwise, None)
    return result.unary, result.pairwise


def log_alpha_beta(unary: jax.Array, pairwise: jax.Array) -> Arrays:
    """The textbook's recursions: log alpha, log beta, and their sum less log Z."""

    def forward(alpha, inputs):
        scores, matrix = inputs
        alpha = jax.nn.logsumexp(alpha[:, None] + matrix, axis=0) + scores
        return alpha, alpha

    def backward(beta, inputs):
        scores, matrix = inputs
        beta = jax.nn.logsumexp(matrix + (scores + beta)[None, :], axis=1)
        return beta, beta

    inputs = (unary[1:], pairwise)
    last = jnp.zeros_like(unary[0])
    alpha = jnp.concatenate([unary[:1], jax.lax.scan(forward, unary[0], inputs)[1]])
    beta = jnp.concatenate([jax.lax.scan(backward, last, inputs, reverse=True)[1], last[None]])
    log_z = jax.nn.logsumexp(alpha[-1])
    edges = alpha[:-1, :, None] + pairwise + (unary + beta)[1:, None, :] - log_z
    return jnp.exp(alpha + beta - log_z), jnp.exp(edges)


MARGINALS = {"ours": ours, "autodiff": autodiff, "log-alpha-beta": log_alpha_beta}


def gradient(marginals_fn):
    """The gradient of <marginals, w> in the potentials, over a batch."""

    def product(unary, pairwise, w_unary, w_pairwise):
        p_unary, p_pairwise = jax.vmap(marginals_fn)(unary, pairwise)
        return jnp.vdot(p_unary, w_unary) + jnp.vdot(p_pairwise, w_pairwise)

    return jax.grad(product, argnums=(0, 1))


def bind(function, *args):
    """The call without arguments; arguments of a jitted function stay arguments."""
    return lambda: function(*args)


def worst(values, exact) -> float:
    """The largest absolute difference over all leaves."""
    differences = jax.tree.map(lambda a, b: np.max(np.abs(np.asarray(a) - b)), values, exact)
    return float(max(jax.tree.leaves(differences)))


if __name__ == "__main__":
    flags.DEFINE_bool("peers", False, "Also time torch-struct and dynamax.")
    flags.DEFINE_integer("rounds", 15, "Rounds over the calls of a row.", lower_bound=1)
    timing.run(main)
