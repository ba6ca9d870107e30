"""Unnormalised models: energies, their Markov chains, partition functions, and ascents."""
