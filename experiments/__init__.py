"""Experiments: one absl binary per section of a paper; see each module for its command.

Modules without a command are what several share: `common` (the command line), `images`,
`gasn_datasets`, `gasn_study`, `structured_outputs`, `energy_methods`, `alen_config`,
`alen_settings`.
"""
