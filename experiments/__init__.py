"""Experiments: one absl binary per section of a paper; see each module for its command."""
