"""Distributions over discrete structures: inference that you can differentiate."""
