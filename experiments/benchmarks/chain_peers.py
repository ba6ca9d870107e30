"""torch-struct and dynamax on the inputs of the chain benchmark; needs the `benchmarks` extra."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch_struct
from dynamax.hidden_markov_model import inference as dynamax_inference


def dynamax_calls(unary, pairwise, w_unary, w_pairwise):
    """Unary and pairwise marginals, and the gradient of their product with w.

    dynamax takes probabilities for transitions: any positive matrices do.
    """

    def smoother(unary, pairwise):
        uniform = jnp.full(unary.shape[-1], 1.0 / unary.shape[-1])
        posterior = dynamax_inference.hmm_smoother(uniform, jnp.exp(pairwise), unary)
        return posterior.smoothed_probs, posterior.trans_probs

    def product(unary, pairwise, w_unary, w_pairwise):
        p_unary, p_pairwise = jax.vmap(smoother)(unary, pairwise)
        return jnp.vdot(p_unary, w_unary) + jnp.vdot(p_pairwise, w_pairwise)

    forward, gradient = jax.jit(jax.vmap(smoother)), jax.jit(jax.grad(product, argnums=(0, 1)))
    return {
        "dynamax": lambda: forward(unary, pairwise),
        "dynamax, gradient": lambda: gradient(unary, pairwise, w_unary, w_pairwise),
    }


def torch_struct_calls(unary, pairwise, w_unary, w_pairwise):
    """The same of edges alone, with unary scores folded into them: torch-struct knows no others.

    Nothing where one of its matrix products in the log semiring, which write out N L^3 numbers an
    example, would take more than 2 GB.
    """
    del w_unary
    if pairwise.nbytes * pairwise.shape[-1] > 2e9:
        return {}
    edges = pairwise + unary[:, 1:, None, :]
    edges = _to_torch(edges.at[:, 0].add(unary[:, 0, :, None]))
    weights = _to_torch(w_pairwise)

    def torch_gradient():
        scores = edges.clone().requires_grad_(True)
        marginals = torch_struct.LinearChainCRF(scores).marginals
        return torch.autograd.grad((marginals * weights).sum(), scores)[0]

    return {
        "torch-struct": lambda: torch_struct.LinearChainCRF(edges).marginals,
        "torch-struct, gradient": torch_gradient,
    }


def pairwise_of(result) -> np.ndarray:
    """The pairwise marginals of a call's result, [B, N-1, L, L], for comparison."""
    if isinstance(result, torch.Tensor):
        # torch-struct indexes an edge as (next, current).
        return result.detach().numpy().swapaxes(-1, -2)
    return np.asarray(result[1])


def _to_torch(edges):
    return torch.tensor(np.asarray(edges).swapaxes(-1, -2).copy())
