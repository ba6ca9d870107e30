"""Flax Linen shells: networks that output potentials, energies and features."""
