"""What can end a run early: every exception prints as one line and carries an exit code.

| exit code | exception                         | meaning                                     |
|-----------|-----------------------------------|---------------------------------------------|
| 2         | `ConfigError`                     | a config value that cannot be trained       |
| 3         | `NonFiniteError`                  | NaN or Inf in a metric or in the state      |
| 4         | `WorkdirError`, `CheckpointError` | the run directory or its checkpoints        |
| 130, 143  | `Interrupted`                     | SIGINT or SIGTERM, after a checkpoint       |
"""

from typing import Any

from gasn_jax import checks


class RunError(Exception):
    """A run ended for a reason that its user can act on."""

    exit_code = 1

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))


class ConfigError(RunError, ValueError):
    """A config value is out of range."""

    exit_code = 2


class NonFiniteError(RunError):
    """A metric or a leaf of the state became NaN or Inf."""

    exit_code = 3


class WorkdirError(RunError):
    """The run directory cannot be used: full, read-only, locked or of another config."""

    exit_code = 4


class CheckpointError(RunError):
    """Checkpoints exist and none of them can be restored."""

    exit_code = 4


class Interrupted(RunError):
    """SIGINT or SIGTERM arrived; the run was saved and can be resumed."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


def require(ok: Any, field: str, wanted: str, got: Any) -> None:
    """Returns nothing if `ok`; raises `ConfigError` otherwise, see `gasn_jax.checks.require`."""
    checks.require(ok, field, wanted, got, ConfigError)
