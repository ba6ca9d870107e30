"""Inference beyond chains: trees and grids, speed against PGMax, errors, hard models.

    python -m experiments.benchmarks.loopy --workdir=DIR [--peers] [--rounds=7]

Prints Markdown tables, and writes `marginal_error.png` with its CSV. `--peers` needs the
`benchmarks` extra (PGMax). About 6 minutes on 2 CPU cores. Speed is in float32, all else in
float64; exact values come from :mod:`gasn_jax.structured.grid`.
"""

import functools
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments.benchmarks import timing
from gasn_jax.structured import belief_propagation, conditioning, counting, graph, grid, tree
from gasn_jax.training import pictures

Solver = belief_propagation.Solver

KINDS = {
    "Bethe": counting.bethe,
    "tree-reweighted": counting.tree_reweighted,
    "convex": counting.convex,
}
# Enough for every model here, and the flag in the result says when it was not.
CAREFUL = Solver(num_steps=2000, tolerance=1e-9, gap_tolerance=1e-9, acceleration=20)


def main() -> None:
    title = "Speed: 32 x 32 grid, 2 states, batch 64, float32"
    print(f"### {title}\n\n{speed_table(flags.FLAGS.rounds, flags.FLAGS.peers)}\n", flush=True)
    title = "Derivatives: the same grids, tree-reweighted, d sum p(x)^2"
    print(f"### {title}\n\n{gradient_table(flags.FLAGS.rounds)}\n", flush=True)
    title = "Exact: trees of 1023 variables with 8 states, grids; batch 16, float32"
    print(f"### {title}\n\n{exact_table(flags.FLAGS.rounds)}\n", flush=True)
    workdir = pathlib.Path(flags.FLAGS.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    with jax.enable_x64(True):
        for title, build in [
            ("Hard models: 10 x 10 Ising, fields N(0, 1), couplings 2 N(0, 1)", hard_table),
            ("Marginals: 8 x 8 Ising, mean absolute error", functools.partial(errors, workdir)),
            ("Derivatives: 4 x 4 Ising, relative error of d p(x_i) / d unary", derivative_table),
        ]:
            print(f"### {title}\n\n{build()}\n", flush=True)


def ising(size: int, coupling: float, seed: int):
    """A square grid, fields N(0, 1), couplings N(0, coupling^2) between states -1 and 1."""
    rng, signs = np.random.default_rng(seed), np.array([-1.0, 1.0])
    structure = graph.grid(size, size, 2)
    fields = rng.normal(size=(size * size, 1)) * signs
    couplings = coupling * rng.normal(size=(len(structure.factors[0]), 1, 1))
    return structure, jnp.asarray(fields), (jnp.asarray(couplings * np.outer(signs, signs)),)


def speed_table(num_rounds: int, peers: bool) -> str:
    """One sweep, as a share of fifty; and the sweeps until no message moves by 1e-4."""
    structure, num_steps, batch = graph.grid(32, 32, 2), 50, 64
    models = [ising(32, 0.5, seed)[1:] for seed in range(batch)]
    unary = jnp.stack([model[0] for model in models])
    pairwise = jnp.stack([model[1][0] for model in models])
    numbers = counting.bethe(structure)

    def ours(**fields):
        solver = Solver(**{"num_steps": num_steps, "tolerance": 0.0, "acceleration": 0} | fields)

        def run(unary, pairwise):
            options = dict(counting=numbers, solver=solver)
            return belief_propagation.marginals(structure, unary, (pairwise,), **options)

        return jax.jit(jax.vmap(run))

    plain = dict(schedule="parallel", damping=0.5)
    kinds = {
        "parallel, damping 0.5": plain,
        "coloured": {},
        "coloured, accelerated": dict(acceleration=5),
    }
    calls = {name: ours(**fields) for name, fields in kinds.items()}
    steps = {
        name: ours(**fields, tolerance=1e-4, num_steps=500)(unary, pairwise).num_steps
        for name, fields in kinds.items()
    }
    one = ours(**plain, num_steps=1)
    calls["one sweep and the marginals"] = one
    if peers:
        from experiments.benchmarks import loopy_peers

        calls["PGMax, damping 0.5"] = loopy_peers.pgmax_runner(structure, num_steps, 0.5)
        moves = loopy_peers.pgmax_runner(structure, 500, 0.5)(unary, pairwise)[1]
        steps["PGMax, damping 0.5"] = 1 + jnp.argmax(moves <= 1e-4, axis=1)
    messages = one(unary, pairwise).messages
    bound = {name: functools.partial(call, unary, pairwise) for name, call in calls.items()}
    bound["copy of the messages"] = functools.partial(jax.jit(jnp.positive), messages)
    time_of = timing.rounds(bound, num_rounds=num_rounds)
    beyond = time_of["one sweep and the marginals"]
    rows = [["copy of the messages", f"{1e3 * time_of['copy of the messages']:.2f}", "", ""]]
    for name, steps_of in steps.items():
        overhead = 0.0 if name.startswith("PGMax") else beyond
        each = (time_of[name] - overhead) / (num_steps - (overhead > 0))
        first = (time_of["parallel, damping 0.5"] - beyond) / (num_steps - 1)
        quarters = np.percentile(np.asarray(steps_of), [0, 50, 100]).astype(int)
        sweeps = "{1} ({0} to {2})".format(*quarters)
        rows.append([name, f"{1e3 * each:.2f}", f"{each / first:.1f}", sweeps])
    return timing.table(["method", "ms a sweep", "ratio", "sweeps to 1e-4, median (range)"], rows)


def gradient_table(num_rounds: int) -> str:
    """The derivative of the beliefs, implicit and through the sweeps: time and memory."""
    structure, batch = graph.grid(32, 32, 2), 64
    models = [ising(32, 0.5, seed)[1:] for seed in range(batch)]
    arguments = jax.tree.map(lambda *x: jnp.stack(x).astype(jnp.float32), *models)
    numbers = counting.tree_reweighted(structure)

    def derivative(**fields):
        solver = Solver(**dict(acceleration=0) | fields)

        def loss(unary, factors):
            options = dict(counting=numbers, solver=solver)
            return jnp.sum(
                belief_propagation.marginals(structure, unary, factors, **options).unary ** 2
            )

        both = (loss, jax.grad(loss, argnums=(0, 1)))
        return [jax.jit(jax.vmap(f)).lower(*arguments).compile() for f in both]

    kinds = {
        "implicit, to a residual of 1e-5": dict(tolerance=1e-5),
        "implicit, after 10 sweeps": dict(num_steps=10),
        "implicit, after 40 sweeps": dict(num_steps=40, tolerance=0.0),
        "unrolled, 10 sweeps": dict(num_steps=10, gradient="unrolled"),
        "unrolled, 40 sweeps": dict(num_steps=40, gradient="unrolled"),
    }
    calls = {name: derivative(**fields) for name, fields in kinds.items()}
    bound = {
        name + kind: functools.partial(call, *arguments)
        for name, both in calls.items()
        for kind, call in zip(("", ", gradient"), both, strict=True)
    }
    time_of = timing.rounds(bound, num_rounds=num_rounds)
    rows = [
        [
            name,
            f"{1e3 * time_of[name]:.0f}",
            f"{1e3 * time_of[name + ', gradient']:.0f}",
            f"{both[1].memory_analysis().temp_size_in_bytes / 2**20:.0f}",
        ]
        for name, both in calls.items()
    ]
    return timing.table(["derivative", "beliefs, ms", "and gradient, ms", "temporary MiB"], rows)


def exact_table(num_rounds: int) -> str:
    """Marginals and their gradients: time, and float32 against float64."""
    numbers = np.arange(1023)
    trees = {
        "path": numbers - 1,
        "balanced binary": (numbers - 1) // 2,
        "star": np.where(numbers == 0, -1, 0),
        "random": np.array(
            [-1, *(np.random.default_rng(0).random(1022) * numbers[1:]).astype(int)]
        ),
    }
    problems = {
        f"tree, {name}": (graph.tree(8, np.where(numbers == 0, -1, above)), tree.marginals)
        for name, above in trees.items()
    }
    for size, states in ((8, 2), (10, 2), (5, 4)):
        run = functools.partial(grid.marginals, height=size)
        problems[f"grid, {size} x {size}, {states} states"] = graph.grid(size, size, states), run
    rows = []
    for name, (structure, marginals) in problems.items():
        rng = np.random.default_rng(0)
        shapes = [(16, structure.num_variables, structure.num_states)]
        shapes += [(16, *shape) for shape in structure.factor_shapes]
        unary, *factors = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
        weights = rng.normal(size=unary.shape[1:]).astype(np.float32)
        narrow = unary, tuple(factors)
        calls = _exact_calls(structure, marginals, weights)
        bound = {kind: functools.partial(call, *narrow) for kind, call in calls.items()}
        time_of = timing.rounds(bound, num_rounds=num_rounds)
        found = {kind: jax.device_get(call()) for kind, call in bound.items()}
        # JAX may meet what it traced in float32 again, with indices of the wrong width.
        jax.clear_caches()
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), narrow)
            calls = _exact_calls(structure, marginals, weights)
            exact = {kind: jax.device_get(call(*wide)) for kind, call in calls.items()}
        cells = []
        for kind in calls:
            pairs = zip(jax.tree.leaves(found[kind]), jax.tree.leaves(exact[kind]), strict=True)
            error = max(np.abs(a - b).max(initial=0.0) for a, b in pairs)
            cells += [f"{1e3 * time_of[kind]:.1f}", f"{error:.0e}"]
        rows.append([name, *cells])
    return timing.table(["graph", "marginals, ms", "error", "gradient, ms", "error"], rows)


def _exact_calls(structure, marginals, weights):
    """The unary marginals, and the gradient of a product with them, of batches."""

    def run(unary, factors):
        return marginals(structure, unary, factors).unary

    def gradient(unary, factors):
        return jax.grad(lambda *x: jnp.sum(weights * run(*x)), argnums=(0, 1))(unary, factors)

    kinds = {"marginals": run, "gradient": gradient}
    return {kind: jax.jit(jax.vmap(function)) for kind, function in kinds.items()}


def hard_table() -> str:
    """How far each free energy comes, and how tight it is, over five models."""
    structure = ising(10, 2.0, 0)[0]
    models = [ising(10, 2.0, seed)[1:] for seed in range(1, 6)]
    exact = [float(grid.log_partition(structure, *model, height=10)) for model in models]
    plain = dict(num_steps=2000, schedule="parallel", acceleration=0, tolerance=1e-6)
    careful = dict(num_steps=500, num_newton_steps=30, gap_tolerance=1e-5, tolerance=1e-13)
    methods = [
        *((f"Bethe, damping {d}", "Bethe", dict(plain, damping=d)) for d in (0.0, 0.5, 0.9)),
        ("Bethe, 20 steps mixed", "Bethe", dict(num_steps=2000, acceleration=20, tolerance=1e-6)),
        ("tree-reweighted, damping 0.5", "tree-reweighted", dict(plain, damping=0.5)),
        ("tree-reweighted", "tree-reweighted", careful),
        ("convex", "convex", careful),
    ]
    rows = []
    for name, kind, fields in methods:
        solver = Solver(**fields)
        options = dict(counting=KINDS[kind](structure), solver=solver)
        run = jax.jit(functools.partial(belief_propagation.marginals, structure, **options))
        jax.block_until_ready(run(*models[0]))
        start = time.perf_counter()
        results = [jax.block_until_ready(run(*model)) for model in models]
        seconds = (time.perf_counter() - start) / len(models)
        rows.append([name, *_summary(results, exact), f"{1e3 * seconds:.0f}"])
    tightened = []
    start = time.perf_counter()
    for model in models:
        solver = Solver(**dict(careful, gap_tolerance=1e-3))
        options = dict(num_rounds=30, solver=solver)
        numbers = belief_propagation.tighten(structure, *model, **options).counting
        options = dict(counting=numbers, solver=Solver(**careful))
        tightened.append(belief_propagation.marginals(structure, *model, **options))
    seconds = (time.perf_counter() - start) / len(models)
    rows.append(
        [
            "tree-reweighted, 30 rounds tightened",
            *_summary(tightened, exact),
            f"{1e3 * seconds:.0f}",
        ]
    )
    header = [
        "free energy",
        "converged",
        "worst residual",
        "worst gap",
        "steps",
        "log Z less exact",
    ]
    return timing.table([*header, "ms"], rows)


def _summary(results, exact) -> list[str]:
    above = [float(r.log_partition) - e for r, e in zip(results, exact, strict=True)]
    steps = [int(r.num_steps) for r in results]
    gaps = [float(r.gap) for r in results]
    return [
        f"{sum(bool(r.converged) for r in results)} of {len(results)}",
        f"{max(float(r.residual) for r in results):.0e}",
        "" if np.isnan(gaps[0]) else f"{max(gaps):.0e}",
        f"{min(steps)} to {max(steps)}",
        f"{min(above):.2f} to {max(above):.2f}",
    ]


def errors(workdir: pathlib.Path) -> str:
    """Error of the variables' marginals against the exact ones, weak to strong coupling."""
    couplings, seeds = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0), range(10)
    structure = ising(8, 1.0, 0)[0]
    exact = jax.jit(functools.partial(grid.marginals, structure, height=8))
    truth = [[exact(*ising(8, c, seed)[1:]).unary for seed in seeds] for c in couplings]
    rows, curves = [], {}
    for name, kind in KINDS.items():
        options = dict(counting=kind(structure), solver=CAREFUL)
        run = jax.jit(functools.partial(belief_propagation.marginals, structure, **options))
        found = [[run(*ising(8, c, seed)[1:]) for seed in seeds] for c in couplings]
        error = np.array(
            [
                [float(jnp.mean(jnp.abs(r.unary - t))) for r, t in zip(some, wanted, strict=True)]
                for some, wanted in zip(found, truth, strict=True)
            ]
        )
        settled = [sum(bool(r.converged) for r in some) for some in found]
        mean, spread = error.mean(1), error.std(1)
        curves[name] = (mean, mean - spread, mean + spread)
        cells = zip(mean, spread, settled, strict=True)
        rows.append([name, *(f"{m:.3f} ± {s:.3f} ({n})" for m, s, n in cells)])
    pictures.save_curves(
        workdir / "marginal_error.png",
        np.array(couplings),
        curves,
        xlabel="standard deviation of the couplings",
        ylabel="mean absolute error of p(x_i)",
        title="8 x 8 Ising models against exact marginals",
    )
    return timing.table(["couplings (converged of 10)", *couplings], rows)


def derivative_table() -> str:
    """Conditioned runs, and implicit differentiation, against the exact covariance."""
    rows = []
    for coupling in (0.25, 0.5, 1.0, 1.5):
        per_kind = {}
        for seed in range(5):
            structure, unary, factors = ising(4, coupling, seed)
            exact_fn = functools.partial(grid.marginals, structure, height=4)
            exact = jax.jacobian(lambda u, f=exact_fn, t=factors: f(u, t).unary)(unary)
            for name, kind in KINDS.items():
                both = _derivatives(structure, kind)(unary, factors)
                wrong = [float(jnp.linalg.norm(x - exact) / jnp.linalg.norm(exact)) for x in both]
                per_kind.setdefault(name, []).append(wrong)
        for name, wrong in per_kind.items():
            mean, spread = np.mean(wrong, axis=0), np.std(wrong, axis=0)
            cells = (f"{m:.2f} ± {s:.2f}" for m, s in zip(mean, spread, strict=True))
            rows.append([coupling, name, *cells])
    return timing.table(["coupling", "free energy", "conditioning", "implicit"], rows)


@functools.cache
def _derivatives(structure, kind):
    options = dict(counting=kind(structure), solver=CAREFUL)
    run = functools.partial(belief_propagation.marginals, structure, **options)

    def both(unary, factors):
        def pair(u, f):
            result = run(u, f)
            return result.unary, result.factors

        conditioned = conditioning.covariance(pair, unary, factors)[0]
        return conditioned, jax.jacobian(lambda u: run(u, factors).unary)(unary)

    return jax.jit(both)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Where the picture goes.", required=True)
    flags.DEFINE_bool("peers", False, "Also time PGMax.")
    flags.DEFINE_integer("rounds", 7, "Rounds over the calls of the speed table.", lower_bound=1)
    timing.run(main)
