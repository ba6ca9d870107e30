"""Generative models with dependent outputs and energy models over structured outputs, in JAX.

The library computes exact and approximate inference in graphical models that you can
differentiate, offers the learning algorithms around it, and builds on both the systems of papers.
Submodules are the namespaces, and importing this package loads none of them:

* ``gasn_jax.structured``: distributions over discrete structures (log-partition, marginals,
  samples, modes);
* ``gasn_jax.energy``: unnormalised models (restricted Boltzmann machines, their Gibbs chains and
  partition functions; gradient inference in any energy);
* ``gasn_jax.learning``: objectives and gradient estimators, which take callables and parameters;
* ``gasn_jax.evaluation``: the numbers that papers report;
* ``gasn_jax.data``: readers and generators, returning numpy arrays;
* ``gasn_jax.nn``: Flax Linen networks that output potentials, energies and features;
* ``gasn_jax.systems``: one module per paper;
* ``gasn_jax.training``: the loop, checkpoints, metrics.
"""

__version__ = "0.1.0"
