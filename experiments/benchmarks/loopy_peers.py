"""PGMax's sum-product on the grids of the loopy benchmark; needs the `benchmarks` extra.

PGMax 0.6.1 asks for `jax.lib.xla_bridge`, which newer versions of JAX have elsewhere.
"""

import types

import jax
import jax.extend
import numpy as np
from pgmax import fgraph, fgroup, infer, vgroup

if not hasattr(jax.lib, "xla_bridge"):
    jax.lib.xla_bridge = types.SimpleNamespace(get_backend=jax.extend.backend.get_backend)


def pgmax_runner(graph, num_steps: int, damping: float):
    """A compiled function of batched potentials: marginals [B, N, L] and the largest move [B, T].

    Unary potentials are evidence [B, N, L], pairwise ones [B, F, L, L].
    """
    names = vgroup.NDVarArray(num_states=graph.num_states, shape=(graph.num_variables,))
    edges = graph.factors[0]
    pairs = [[names[int(a)], names[int(b)]] for a, b in edges]
    zeros = np.zeros((len(edges), graph.num_states, graph.num_states), np.float32)
    group = fgroup.PairwiseFactorGroup(variables_for_factors=pairs, log_potential_matrix=zeros)
    whole = fgraph.FactorGraph(variable_groups=names)
    whole.add_factors(group)
    propagation = infer.build_inferer(whole.bp_state, backend="bp")

    def run(unary, pairwise):
        arrays = propagation.init(
            evidence_updates={names: unary}, log_potentials_updates={group: pairwise}
        )
        arrays, moves = propagation.run_with_diffs(
            arrays, num_iters=num_steps, damping=damping, temperature=1.0
        )
        beliefs = propagation.get_beliefs(arrays)[names]
        return infer.get_marginals({names: beliefs})[names], moves

    return jax.jit(jax.vmap(run))
