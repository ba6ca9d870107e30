"""Every structure under every law. A new structure adds one entry to ``STRUCTURES``."""

import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.structured import chain, graph, grid, tree
from tests.laws.structure import LAWS, Structure


def _chain(num_variables, num_states):
    def random_potentials(rng, forbid):
        unary = rng.normal(size=(num_variables, num_states))
        pairwise = rng.normal(size=(num_variables - 1, num_states, num_states))
        if forbid:
            # State 0 stays possible everywhere, so the chain stays feasible.
            unary[rng.integers(num_variables), 1:][rng.random(num_states - 1) < 0.5] = -np.inf
            unary[0, 1] = -np.inf
            mask = rng.random(pairwise.shape) < 0.3
            mask[:, 0, 0] = False
            pairwise[mask] = -np.inf
        return {"unary": unary, "pairwise": pairwise}

    def infeasible_potentials(rng):
        potentials = random_potentials(rng, True)
        if num_variables > 1 and rng.random() < 0.5:
            potentials["pairwise"][rng.integers(num_variables - 1)] = -np.inf
        else:
            potentials["unary"][rng.integers(num_variables)] = -np.inf
        return potentials

    def marginals(u, t):
        m = chain.marginals(u["unary"], u["pairwise"], temperature=t)
        return {"unary": m.unary, "pairwise": m.pairwise}

    def from_the_other_end(u, t):
        mirrored = {"unary": u["unary"][::-1], "pairwise": u["pairwise"][::-1].swapaxes(1, 2)}
        m = marginals(mirrored, t)
        return {"unary": m["unary"][::-1], "pairwise": m["pairwise"][::-1].swapaxes(1, 2)}

    def forward_messages(u, t):
        """Sums of products, left to right and right to left: fine for small float64 chains."""
        unary, pairwise = jnp.exp(u["unary"] / t), jnp.exp(u["pairwise"] / t)
        alpha, beta = [unary[0]], [jnp.ones_like(unary[0])]
        for i in range(num_variables - 1):
            alpha.append((alpha[-1] @ pairwise[i]) * unary[i + 1])
        for i in reversed(range(num_variables - 1)):
            beta.insert(0, pairwise[i] @ (unary[i + 1] * beta[0]))
        z = alpha[-1].sum()
        edges = [
            alpha[i][:, None] * pairwise[i] * (unary[i + 1] * beta[i + 1])[None, :] / z
            for i in range(num_variables - 1)
        ]
        return {
            "unary": jnp.stack([a * b / z for a, b in zip(alpha, beta, strict=True)]),
            "pairwise": jnp.stack(edges),
        }

    def consistency(m):
        return [
            (m["pairwise"].sum(2), m["unary"][:-1]),
            (m["pairwise"].sum(1), m["unary"][1:]),
        ]

    def sample(key, u, t, num_samples):
        return chain.sample(key, u["unary"], u["pairwise"], num_samples=num_samples, temperature=t)

    return Structure(
        name=f"chain-{num_variables}x{num_states}",
        num_states=(num_states,) * num_variables,
        random_potentials=random_potentials,
        infeasible_potentials=infeasible_potentials,
        score=lambda x, u: chain.score(x, u["unary"], u["pairwise"]),
        log_partition=lambda u, t: chain.log_partition(u["unary"], u["pairwise"], temperature=t),
        marginals=marginals,
        entropy=lambda u, t: chain.entropy(u["unary"], u["pairwise"], temperature=t),
        argmax=lambda u: chain.argmax(u["unary"], u["pairwise"]),
        sample=sample,
        unary_marginals=lambda m: m["unary"],
        consistency=consistency,
        alternatives=(
            ("from the other end", from_the_other_end),
            ("sums of products", forward_messages),
        ),
    )


def _pairwise(name, structure, engine, alternatives=(), **options):
    """A pairwise graph under an exact engine with the functions of ``tree``."""
    num_variables, num_states = structure.num_variables, structure.num_states
    num_factors = len(structure.factors[0])

    def random_potentials(rng, forbid):
        unary = rng.normal(size=(num_variables, num_states))
        pairwise = rng.normal(size=(num_factors, num_states, num_states))
        if forbid:
            # State 0 stays possible everywhere, so the graph stays feasible.
            unary[rng.integers(num_variables), 1:] = -np.inf
            mask = rng.random(pairwise.shape) < 0.05
            mask[:, 0, 0] = False
            pairwise[mask] = -np.inf
        return {"unary": unary, "factors": (pairwise,)}

    def infeasible_potentials(rng):
        potentials = random_potentials(rng, True)
        part = potentials["unary"] if rng.random() < 0.5 else potentials["factors"][0]
        part[rng.integers(len(part))] = -np.inf
        return potentials

    def marginals(u, t):
        m = engine.marginals(structure, u["unary"], u["factors"], temperature=t, **options)
        return {"unary": m.unary, "factors": m.factors}

    def turned_around(u, t):
        """The same graph with every variable and factor renamed and turned around."""
        last = num_variables - 1
        turned = graph.from_edges(
            num_variables, num_states, last - structure.factors[0][::-1, ::-1]
        )
        pairwise = u["factors"][0][::-1].swapaxes(1, 2)
        m = engine.marginals(turned, u["unary"][::-1], (pairwise,), temperature=t, **options)
        return {"unary": m.unary[::-1], "factors": (m.factors[0][::-1].swapaxes(1, 2),)}

    def consistency(m):
        rows = structure.factors[0]
        return [
            (m["factors"][0].sum(2), m["unary"][rows[:, 0]]),
            (m["factors"][0].sum(1), m["unary"][rows[:, 1]]),
        ]

    def of(operation):
        return lambda u, t: operation(structure, u["unary"], u["factors"], temperature=t, **options)

    def sample(key, u, t, num_samples):
        return engine.sample(
            *(key, structure, u["unary"], u["factors"]),
            **dict(num_samples=num_samples, temperature=t, **options),
        )

    return Structure(
        name=name,
        num_states=(num_states,) * num_variables,
        random_potentials=random_potentials,
        infeasible_potentials=infeasible_potentials,
        score=lambda x, u: graph.score(structure, x, u["unary"], u["factors"]),
        log_partition=of(engine.log_partition),
        marginals=marginals,
        entropy=of(engine.entropy),
        argmax=lambda u: engine.argmax(structure, u["unary"], u["factors"], **options),
        sample=sample,
        unary_marginals=lambda m: m["unary"],
        consistency=consistency,
        alternatives=(("renamed and turned around", turned_around), *alternatives),
    )


def _columns_as_rows(u, t):
    """A 2x3 grid, 4 neighbours, as a 3x2 one."""
    order = np.arange(6).reshape(2, 3).T.ravel()
    place = np.argsort(order)
    turned = graph.from_edges(6, 2, place[graph.grid(2, 3, 2).factors[0]])
    m = grid.marginals(turned, u["unary"][order], u["factors"], height=3, temperature=t)
    return {"unary": m.unary[place], "factors": m.factors}


STRUCTURES = [
    _chain(4, 3),
    # A star of three, a pair, and a variable alone; factors in both directions.
    _pairwise("forest", graph.from_edges(7, 2, [(1, 0), (0, 2), (3, 0), (6, 5)]), tree),
    _pairwise(
        "grid-2x3",
        graph.grid(2, 3, 2),
        grid,
        alternatives=(("columns as rows", _columns_as_rows),),
        height=2,
    ),
    pytest.param(
        _pairwise("grid-2x3-diagonal", graph.grid(2, 3, 2, neighbours=8), grid, height=2),
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__.removeprefix("law_"))
@pytest.mark.parametrize("structure", STRUCTURES, ids=repr)
@pytest.mark.usefixtures("x64")
def test_law(structure, law):
    law(structure)
