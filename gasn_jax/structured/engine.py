"""Pairwise models behind one interface, for systems that do not care which one they stand on.

An engine is static and hashable. It has ``num_variables`` N, ``num_states`` L, ``num_factors`` F,
and three functions of the scores ``unary`` [N, L] and ``pairwise`` [F, L, L] of one example:
``marginals``, ``sample`` and ``argmax``. Only chains have a ``length``.

Loopy grids are sampled by Gibbs sweeps from independent draws of the beliefs: they leave the
model's own distribution unchanged, and so are right in the limit, whereas perturbed MAP problems
sample from another distribution however exactly they are solved. A few sweeps only remove what
neighbours disagree on; long-range structure must be in the beliefs they start from.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from gasn_jax import numerics
from gasn_jax.structured import belief_propagation, counting, relaxation, single_site
from gasn_jax.structured import chain as chains
from gasn_jax.structured import graph as graphs
from gasn_jax.structured import grid as grids

Temperature = float | Float[Array, ""]
Length = Int[Array, ""] | None


class Beliefs(NamedTuple):
    """Marginals of one example.

    Attributes:
      unary: ``p(x_i)``, [N, L].
      pairwise: of each factor, [F, L, L].
      converged: whether they are what the engine promises; True if exact.
    """

    unary: Float[Array, "N L"]
    pairwise: Float[Array, "F L L"]
    converged: Bool[Array, ""]


@dataclasses.dataclass(frozen=True)
class Chain:
    """A chain, exact; factor i joins variables i and i + 1."""

    num_variables: int
    num_states: int

    @property
    def num_factors(self) -> int:
        """One less than the variables."""
        return self.num_variables - 1

    def marginals(
        self, unary, pairwise, *, temperature: Temperature = 1.0, length: Length = None
    ) -> Beliefs:
        """Exact marginals, see :func:`gasn_jax.structured.chain.marginals`."""
        result = chains.marginals(unary, pairwise, temperature=temperature, length=length)
        return Beliefs(result.unary, result.pairwise, jnp.bool_(True))

    def sample(
        self, key: Key[Array, ""], unary, pairwise, *, temperature: Temperature = 1.0, length=None
    ) -> Int[Array, "N"]:
        """One exact sample, -1 beyond the length."""
        return chains.sample(
            key, unary, pairwise, num_samples=1, temperature=temperature, length=length
        )[0]

    def argmax(self, unary, pairwise, *, length: Length = None) -> Int[Array, "N"]:
        """The best states, -1 beyond the length."""
        return chains.argmax(unary, pairwise, length=length)[0]


@dataclasses.dataclass(frozen=True)
class Grid:
    """A grid with 4 neighbours, exact column by column: O(width L^(2 height))."""

    height: int
    width: int
    num_states: int

    @property
    def graph(self) -> graphs.FactorGraph:
        """The graph whose factors the pairwise scores belong to."""
        return graphs.grid(self.height, self.width, self.num_states)

    @property
    def num_variables(self) -> int:
        """Height times width; variable ``row * width + column``."""
        return self.height * self.width

    @property
    def num_factors(self) -> int:
        """The pairs of neighbours."""
        return sum(self.graph.factor_shapes[0][:1]) if self.graph.factors else 0

    def marginals(
        self, unary, pairwise, *, temperature: Temperature = 1.0, length: Length = None
    ) -> Beliefs:
        """Exact marginals, see :mod:`gasn_jax.structured.grid`."""
        result = grids.marginals(
            *(self.graph, unary, (pairwise,)), height=self.height, temperature=temperature
        )
        return Beliefs(result.unary, result.factors[0], jnp.bool_(True))

    def sample(
        self, key: Key[Array, ""], unary, pairwise, *, temperature: Temperature = 1.0, length=None
    ) -> Int[Array, "N"]:
        """One exact sample."""
        factors, height = (pairwise,), self.height
        return grids.sample(
            key, self.graph, unary, factors, height=height, num_samples=1, temperature=temperature
        )[0]

    def argmax(self, unary, pairwise, *, length: Length = None) -> Int[Array, "N"]:
        """The best states."""
        return grids.argmax(self.graph, unary, (pairwise,), height=self.height)[0]


@dataclasses.dataclass(frozen=True)
class LoopyGrid(Grid):
    """A grid of any size with 4 neighbours, by belief propagation.

    Attributes:
      solver: of the marginals.
      num_sweeps: Gibbs sweeps of a sample.
    """

    solver: belief_propagation.Solver = belief_propagation.Solver(num_steps=100, acceleration=0)
    num_sweeps: int = 10

    def marginals(
        self, unary, pairwise, *, temperature: Temperature = 1.0, length: Length = None
    ) -> Beliefs:
        """Tree-reweighted beliefs, see :mod:`gasn_jax.structured.belief_propagation`."""
        result = belief_propagation.marginals(
            self.graph,
            unary,
            (pairwise,),
            counting=counting.tree_reweighted(self.graph),
            temperature=temperature,
            solver=self.solver,
        )
        return Beliefs(result.unary, result.factors[0], result.converged)

    def sample(
        self, key: Key[Array, ""], unary, pairwise, *, temperature: Temperature = 1.0, length=None
    ) -> Int[Array, "N"]:
        """One sample: Gibbs sweeps from independent draws of the beliefs."""
        unary, pairwise = lax.stop_gradient((unary, pairwise))
        beliefs = self.marginals(unary, pairwise, temperature=temperature).unary
        start_key, sweep_key = jax.random.split(key)
        uniform = jax.random.uniform(start_key, (self.num_variables,), beliefs.dtype)
        states = numerics.inverse_cdf(beliefs.T, uniform)

        def sweep(states, key):
            factors = (pairwise,)
            return single_site.gibbs_sweep(
                key, self.graph, states, unary, factors, temperature=temperature
            ), None

        keys = jax.random.split(sweep_key, self.num_sweeps)
        return lax.scan(sweep, states, keys)[0]

    def argmax(self, unary, pairwise, *, length: Length = None) -> Int[Array, "N"]:
        """Good states, see :func:`gasn_jax.structured.relaxation.argmax`."""
        return relaxation.argmax(self.graph, unary, (pairwise,)).states


Engine = Chain | Grid
