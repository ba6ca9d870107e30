"""Unnormalised models: energies, their Markov chains, and estimates of what normalises them."""
