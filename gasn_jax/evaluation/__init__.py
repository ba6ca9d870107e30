"""Measures that papers report: sample statistics, scores of predictions, likelihood estimates."""
