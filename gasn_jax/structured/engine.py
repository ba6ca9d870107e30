"""Pairwise models behind one interface, for systems that do not care which one they stand on.

An engine is static and hashable. It has ``num_variables`` N, ``num_states`` L, ``num_factors`` F,
and three functions of the scores ``unary`` [N, L] and ``pairwise`` [F, L, L] of one example:
``marginals``, ``sample`` and ``argmax``. Only chains have a ``length``; the others ignore it. The
gradient of marginals in ``probe`` is the residual of the linear system behind their gradient in the
scores, see :mod:`gasn_jax.structured.belief_propagation`: 0 of exact engines.

Loopy models are sampled by Gibbs sweeps from independent draws of the beliefs: they leave the
model's own distribution unchanged, and so are right in the limit, whereas perturbed MAP problems
sample from another distribution however exactly they are solved. A few sweeps only remove what
neighbours disagree on; long-range structure must be in the beliefs they start from, and where
scores are ``-inf`` they may not find a possible state.
"""

import dataclasses
import functools
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from gasn_jax import numerics
from gasn_jax.structured import (
    belief_propagation,
    conditioning,
    counting,
    forest,
    relaxation,
    single_site,
)
from gasn_jax.structured import chain as chains
from gasn_jax.structured import graph as graphs
from gasn_jax.structured import grid as grids
from gasn_jax.structured import tree as trees

Temperature = float | Float[Array, ""]
Length = Int[Array, ""] | None
Probe = Float[Array, ""] | float

_FREE_ENERGIES = {
    "tree_reweighted": counting.tree_reweighted,
    "convex": counting.convex,
    "bethe": counting.bethe,
}


class Beliefs(NamedTuple):
    """Marginals of one example.

    Attributes:
      unary: ``p(x_i)``, [N, L].
      pairwise: of each factor, [F, L, L].
      converged: whether they are what the engine promises; of exact ones, whether they are numbers.
    """

    unary: Float[Array, "N L"]
    pairwise: Float[Array, "F L L"]
    converged: Bool[Array, ""]


class Found(NamedTuple):
    """States of one example.

    Attributes:
      states: [N] int32, -1 beyond the length and where no possible states were found.
      reliable: whether they are what was asked for. Exact engines say True unless a score is NaN or
        ``+inf``; others, of a sample, that it started from beliefs that converged, of the best
        states, that a bound certifies them.
    """

    states: Int[Array, "N"]
    reliable: Bool[Array, ""]


@dataclasses.dataclass(frozen=True)
class Chain:
    """A chain, exact; factor i joins variables i and i + 1."""

    num_variables: int
    num_states: int

    def __post_init__(self):
        """Raises ValueError for sizes below 1."""
        graphs.chain(self.num_variables, self.num_states)

    @property
    def num_factors(self) -> int:
        """One less than the variables."""
        return self.num_variables - 1

    def marginals(
        self,
        unary,
        pairwise,
        *,
        temperature: Temperature = 1.0,
        length: Length = None,
        probe: Probe = 0.0,
    ) -> Beliefs:
        """Exact marginals, see :func:`gasn_jax.structured.chain.marginals`."""
        result = chains.marginals(unary, pairwise, temperature=temperature, length=length)
        return Beliefs(result.unary, result.pairwise, _known(result.unary))

    def sample(
        self,
        key: Key[Array, ""],
        unary,
        pairwise,
        *,
        temperature: Temperature = 1.0,
        length: Length = None,
        beliefs: Beliefs | None = None,
    ) -> Found:
        """One exact sample; ``beliefs`` are not needed."""
        states = chains.sample(
            key, unary, pairwise, num_samples=1, temperature=temperature, length=length
        )
        return Found(states[0], _is_valid(unary, pairwise, length))

    def argmax(self, unary, pairwise, *, length: Length = None) -> Found:
        """The best states."""
        states, _ = chains.argmax(unary, pairwise, length=length)
        return Found(states, _is_valid(unary, pairwise, length))


@dataclasses.dataclass(frozen=True)
class _OfGraph:
    """What the engines below share: the scores are those of a graph, in its factors' order."""

    graph: graphs.FactorGraph

    def __post_init__(self):
        """Raises ValueError for factors of more than two variables."""
        if self.graph.arities not in ((), (2,)):
            raise ValueError(f"factors must join 2 variables, got arities {self.graph.arities}")

    @property
    def num_variables(self) -> int:
        """N."""
        return self.graph.num_variables

    @property
    def num_states(self) -> int:
        """L."""
        return self.graph.num_states

    @property
    def num_factors(self) -> int:
        """F."""
        return sum(len(rows) for rows in self.graph.factors)

    def _model(self, unary, pairwise):
        """The arguments of the functions on graphs."""
        return self.graph, unary, (pairwise,) if self.graph.factors else ()

    def _beliefs(self, result, converged):
        none = jnp.zeros((0, self.num_states, self.num_states), result.unary.dtype)
        return Beliefs(result.unary, result.factors[0] if result.factors else none, converged)


@dataclasses.dataclass(frozen=True)
class Tree(_OfGraph):
    """A tree or forest, exact."""

    def __post_init__(self):
        """Raises ValueError, too, for a cycle."""
        super().__post_init__()
        forest.plan(self.graph)

    def marginals(
        self,
        unary,
        pairwise,
        *,
        temperature: Temperature = 1.0,
        length: Length = None,
        probe: Probe = 0.0,
    ) -> Beliefs:
        """Exact marginals, see :mod:`gasn_jax.structured.tree`."""
        result = trees.marginals(*self._model(unary, pairwise), temperature=temperature)
        return self._beliefs(result, _known(result.unary))

    def sample(
        self,
        key: Key[Array, ""],
        unary,
        pairwise,
        *,
        temperature: Temperature = 1.0,
        length: Length = None,
        beliefs: Beliefs | None = None,
    ) -> Found:
        """One exact sample; ``beliefs`` are not needed."""
        model = self._model(unary, pairwise)
        states = trees.sample(key, *model, num_samples=1, temperature=temperature)
        return Found(states[0], graphs.is_valid(unary, (pairwise,)))

    def argmax(self, unary, pairwise, *, length: Length = None) -> Found:
        """The best states."""
        states, _ = trees.argmax(*self._model(unary, pairwise))
        return Found(states, graphs.is_valid(unary, (pairwise,)))


@dataclasses.dataclass(frozen=True)
class Grid(_OfGraph):
    """A grid of small height, exact: O(N L^(height + 1)) with 4 neighbours.

    Attributes:
      height: rows, of variables ``row * width + column``.
    """

    height: int

    def __post_init__(self):
        """Raises ValueError, too, for more states than one message can hold."""
        super().__post_init__()
        grids.check(self.graph, height=self.height)

    def marginals(
        self,
        unary,
        pairwise,
        *,
        temperature: Temperature = 1.0,
        length: Length = None,
        probe: Probe = 0.0,
    ) -> Beliefs:
        """Exact marginals, see :mod:`gasn_jax.structured.grid`."""
        model = self._model(unary, pairwise)
        result = grids.marginals(*model, height=self.height, temperature=temperature)
        return self._beliefs(result, _known(result.unary))

    def sample(
        self,
        key: Key[Array, ""],
        unary,
        pairwise,
        *,
        temperature: Temperature = 1.0,
        length: Length = None,
        beliefs: Beliefs | None = None,
    ) -> Found:
        """One exact sample; ``beliefs`` are not needed."""
        model, height = self._model(unary, pairwise), self.height
        states = grids.sample(key, *model, height=height, num_samples=1, temperature=temperature)
        return Found(states[0], graphs.is_valid(unary, (pairwise,)))

    def argmax(self, unary, pairwise, *, length: Length = None) -> Found:
        """The best states."""
        states, _ = grids.argmax(*self._model(unary, pairwise), height=self.height)
        return Found(states, graphs.is_valid(unary, (pairwise,)))


@dataclasses.dataclass(frozen=True)
class Loopy(_OfGraph):
    """Any graph of pairwise factors, by belief propagation.

    Strong scores can keep its sweeps from converging; the results say so.

    Attributes:
      free_energy: of the marginals: ``"tree_reweighted"``, ``"convex"`` or ``"bethe"``; ``argmax``
        takes the convex one.
      solver: of the marginals, and of each stage of ``argmax``.
      num_sweeps: Gibbs sweeps of a sample.
    """

    solver: belief_propagation.Solver = belief_propagation.Solver(
        num_steps=100, acceleration=0, num_gradient_steps=0
    )
    num_sweeps: int = 10
    free_energy: str = "tree_reweighted"

    def __post_init__(self):
        """Raises ValueError, too, for less than one sweep or an unknown free energy."""
        super().__post_init__()
        if self.free_energy not in _FREE_ENERGIES:
            known = ", ".join(_FREE_ENERGIES)
            raise ValueError(f"free_energy must be one of {known}, got {self.free_energy!r}")
        if self.num_sweeps < 1:
            raise ValueError(f"num_sweeps must be >= 1, got {self.num_sweeps}")

    def marginals(
        self,
        unary,
        pairwise,
        *,
        temperature: Temperature = 1.0,
        length: Length = None,
        probe: Probe = 0.0,
    ) -> Beliefs:
        """Approximate beliefs, see :mod:`gasn_jax.structured.belief_propagation`."""
        result = belief_propagation.marginals(
            *self._model(unary, pairwise),
            counting=_FREE_ENERGIES[self.free_energy](self.graph),
            temperature=temperature,
            solver=self.solver,
            probe=probe,
        )
        return self._beliefs(result, result.converged)

    def sample(
        self,
        key: Key[Array, ""],
        unary,
        pairwise,
        *,
        temperature: Temperature = 1.0,
        length: Length = None,
        beliefs: Beliefs | None = None,
    ) -> Found:
        """One sample: Gibbs sweeps from independent draws of the beliefs, given or computed."""
        unary, pairwise = lax.stop_gradient((unary, pairwise))
        if beliefs is None:
            beliefs = self.marginals(unary, pairwise, temperature=temperature)
        weights = lax.stop_gradient(beliefs.unary).T
        start_key, sweep_key = jax.random.split(key)
        precise = jnp.promote_types(weights.dtype, jnp.float32)
        uniform = jax.random.uniform(start_key, (self.num_variables,), precise)
        states = numerics.inverse_cdf(weights, uniform)
        graph, _, factors = self._model(unary, pairwise)

        def sweep(states, key):
            return single_site.gibbs_sweep(
                key, graph, states, unary, factors, temperature=temperature
            ), None

        keys = jax.random.split(sweep_key, self.num_sweeps)
        states, _ = lax.scan(sweep, states, keys)
        possible = graphs.score(graph, states, unary, factors) != -jnp.inf
        return Found(jnp.where(possible, states, -1), beliefs.converged & possible)

    def argmax(self, unary, pairwise, *, length: Length = None) -> Found:
        """Good states, see :func:`gasn_jax.structured.relaxation.argmax`."""
        best = relaxation.argmax(*self._model(unary, pairwise), solver=self.solver)
        return Found(best.states, best.certified)


Engine = Chain | Tree | Grid | Loopy


def marginals(
    engine: Engine,
    unary: Float[Array, "N L"],
    pairwise: Float[Array, "F L L"],
    *,
    temperature: float = 1.0,
    length: Length = None,
    gradient: str = "product",
    probe: Probe = 0.0,
) -> Beliefs:
    """An engine's marginals, whose gradient takes the route of choice.

    Args:
      engine, unary, pairwise, temperature, length, probe: as in ``engine.marginals``.
      gradient: ``"product"``, the covariance times the cotangent, which is the engine's own; or by
        the matrix of covariances of the unary marginals: ``"jacobian"`` (Algorithm 1, of chains),
        ``"conditioning"`` (Equation 13). All give the unary marginals the same gradient if
        inference is exact; by a matrix, the gradient of anything that uses the pairwise marginals
        is NaN, and there is no forward mode.

    Returns:
      :class:`Beliefs`. The gradient costs as much as inference by "product" (in a chain O(N L^2);
      by belief propagation one linear system), in a chain O(N^2 L^3) by "jacobian", and N L runs
      of inference by "conditioning"; the gradient in ``probe`` is then the share of these,
      by the probability of their condition, that did not converge.

    Raises:
      ValueError: for a ``gradient`` that the engine does not have.

    Reference: GASN paper, Equation 12, Algorithm 1 and Equation 13.
    """
    if gradient == "product":
        return engine.marginals(
            unary, pairwise, temperature=temperature, length=length, probe=probe
        )
    if gradient == "jacobian" and isinstance(engine, Chain) or gradient == "conditioning":
        scaled = (numerics.scale(x, temperature) for x in (unary, pairwise))
        return cast(Beliefs, _by_matrix(engine, gradient, *scaled, length, probe))
    raise ValueError(f"gradient must be product or conditioning, of chains jacobian: {gradient!r}")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _by_matrix(engine, gradient, unary, pairwise, length, probe):
    return engine.marginals(unary, pairwise, length=length)


def _by_matrix_forward(engine, gradient, unary, pairwise, length, probe):
    beliefs = _by_matrix(engine, gradient, unary, pairwise, length, probe)
    return beliefs, (unary, pairwise, length, beliefs)


def _by_matrix_backward(engine, gradient, residuals, cotangents):
    unary, pairwise, length, free = residuals
    lost = jnp.zeros((), unary.dtype)
    if gradient == "jacobian":
        matrices = chains.covariance(unary, pairwise, length=length)
    else:

        def run(unary, pairwise_and_flag):
            beliefs = engine.marginals(unary, pairwise_and_flag[0], length=length)
            return beliefs.unary, (beliefs.pairwise, 1.0 - beliefs.converged.astype(unary.dtype))

        # What did not converge goes along as if it were a marginal of its own. Of it the matrix has
        # p(x_i) times the condition's flag less the free run's.
        of_unary, (of_pairwise, flags) = conditioning.covariance(run, unary, (pairwise, lost))
        matrices = of_unary, of_pairwise
        in_use = jnp.sum(free.unary)
        of_free = 1.0 - free.converged.astype(unary.dtype)
        lost = numerics.divide(jnp.sum(flags) + of_free * in_use, in_use)
    # highest: accelerators would round the factors
    unary, pairwise = (
        jnp.tensordot(cotangents.unary, matrix, axes=2, precision="highest") for matrix in matrices
    )
    uses_pairs = jnp.any(cotangents.pairwise != 0)  # the matrix is of the unary marginals
    unary, pairwise = (jnp.where(uses_pairs, jnp.nan, x) for x in (unary, pairwise))
    return unary, pairwise, None, lost


_by_matrix.defvjp(_by_matrix_forward, _by_matrix_backward)


def _known(beliefs):
    return ~jnp.any(jnp.isnan(beliefs))


def _is_valid(unary, pairwise, length):
    """Whether the scores of a chain are scores, whatever stands in its padding."""
    if length is not None:
        inside = jnp.arange(unary.shape[0]) < length
        unary = jnp.where(inside[:, None], unary, 0)
        pairwise = jnp.where(inside[1:, None, None], pairwise, 0)
    return graphs.is_valid(unary, (pairwise,))
