"""The loop under every system: training, checkpoints, the run directory, pictures.

Import the submodules as namespaces: `from gasn_jax.training import loop, checkpoint`.
"""
