"""The command line of every experiment: flags in, `main_fn(config, workdir)`, exit code out.

An experiment is a frozen dataclass of fields with a comment each, a function, and three lines:

    if __name__ == "__main__":
        common.run(train, Config())

which give `--workdir=DIR`, `--config.FIELD=VALUE` for every field, and `--help`. Nothing is
defined at import, so a notebook imports `train` and `Config` and calls them.

| exit code | meaning                                                                           |
|-----------|-----------------------------------------------------------------------------------|
| 0         | done                                                                              |
| 1         | a defect: please report the traceback                                             |
| 2         | a bad flag, path or config value, a missing file or package, out of memory        |
| 3         | NaN or Inf in a metric or the state; the checkpoints are those of finite steps    |
| 4         | workdir or checkpoints: full, read-only, in use, of another config, all damaged   |
| 130       | stopped by Ctrl-C; the same command resumes                                       |
| 143       | stopped by SIGTERM; the same command resumes                                      |

Codes 2 and up come with one line on stderr and no traceback.
"""

import contextlib
import dataclasses
import difflib
import errno
import inspect
import logging
import os
import re
import signal
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

import jax
from absl import app, flags
from ml_collections import config_flags

from gasn_jax.data import locate
from gasn_jax.training import workdir as workdirs
from gasn_jax.training.errors import RunError, WorkdirError

Config = TypeVar("Config")

_BAD_FLAG, _BAD_WORKDIR, _CTRL_C, _TERMINATED = 2, 4, 130, 143
_DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
# The largest integers: of sizes, JAX's own limit; of seeds.
_MOST, _MOST_SEED = 2**31 - 1, 2**32 - 1
# What a path is where another kind was meant.
_KIND_ERRNOS = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST)
_HELP = {"--help", "-help", "-h", "--helpshort", "--helpfull"}
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]*)")
_MODE = re.compile(r"--?mode(=|$)")
_ILLEGAL_INTEGER = re.compile(r"flag --(\w+)=(.*?): invalid literal for int.*", re.DOTALL)
_ILLEGAL_VALUE = re.compile(r"flag --config\.([\w.]+)=(.*?): ", re.DOTALL)


class Mode(NamedTuple):
    """What else an experiment does with a trained run.

    Attributes:
      main_fn: `main_fn(config, workdir, **values)`, with the config of the run in `workdir`.
      defaults: its flags: integers, from 1 (or from 0 where that is the default), and strings,
        None for one that must be given.
      help: a line of `--help`.
    """

    main_fn: Callable[..., Any]
    defaults: Mapping[str, int | str | None]
    help: str


def run(
    main_fn: Callable[[Config, str], Any], default: Config, modes: Mapping[str, Mode] | None = None
) -> NoReturn:
    """Exits with the code of the table above after `main_fn(config, workdir)`.

    Args:
      main_fn: the experiment; its result is ignored.
      default: a frozen dataclass whose `__post_init__` raises a `ValueError` that names the field
        if a value is out of range. Fields are int, float, bool, str, tuples of these, or such
        dataclasses.
      modes: what `--mode=NAME` does instead.
    """
    signal.signal(signal.SIGTERM, _terminate)
    app.run(
        lambda parsed: _leave(_exit_code(*parsed)),
        flags_parser=lambda argv: _parse_command(argv, main_fn, default, modes or {}),
    )


def of_run(directory: str, default: Config) -> Config:
    """The config of the run in a directory.

    Args:
      directory: a workdir.
      default: a config of the experiment that the run must be of.

    Raises:
      WorkdirError: where there is no run, one of another experiment, or a damaged `config.json`.
    """
    values = workdirs.read_config(directory)
    names = {field.name for field in dataclasses.fields(default)}  # type: ignore[arg-type]
    if set(values) != names:
        raise WorkdirError(f"{directory} holds a run of another experiment, or of another version")
    try:
        items = {name: _like(name, value, getattr(default, name)) for name, value in values.items()}
        return type(default)(**items)
    except (TypeError, ValueError) as error:
        raise WorkdirError(f"{directory} holds a damaged config.json: {error}") from error


def _like(name: str, value: Any, default: Any) -> Any:
    """A value from JSON as a field has it; TypeError for one of another type than the default."""
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(_like(name, item, default[0]) if default else item for item in value)
    kind = type(default)
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"{name}: wanted {kind.__name__}, got {value!r}")
    return value


def _leave(code: int) -> int:
    """At once after an interrupt: one of a compilation crashes the interpreter as it ends."""
    if code in (_CTRL_C, _TERMINATED):
        with contextlib.suppress(OSError):  # a pipe that nobody reads
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    return code


def _parse_command(
    argv: list[str],
    main_fn: Callable[[Config, str], Any],
    default: Config,
    modes: Mapping[str, Mode],
) -> tuple[Callable[[Config, str], Any], Config, str]:
    """What to call, and its config and workdir; exits on `--help` and on anything unusable."""
    name, argv = _take_mode(argv) if modes else ("train", argv)
    if name not in ("train", *modes):
        wanted = " or ".join(["train", *modes])
        sys.exit(_say(f"--mode: wanted {wanted}, got {name!r}", _BAD_FLAG))
    if _HELP & {argument.partition("=")[0] for argument in argv[1:]}:
        sys.stdout.write(_help(default, modes))
        sys.exit(0)
    if name == "train":
        return main_fn, *_parse(argv, default)
    return _parse_mode(argv, default, name, modes[name])


def _take_mode(argv):
    """The last mode that is asked for, and the other arguments."""
    name, rest = "train", list(argv)
    while found := [i for i, argument in enumerate(rest) if _MODE.match(argument)]:
        flag, equals, name = rest.pop(found[0]).partition("=")
        if not equals:  # the value is an argument of its own
            if found[0] == len(rest):
                sys.exit(_say(f"missing value of {flag}", _BAD_FLAG))
            name = rest.pop(found[0])
    return name, rest


def _parse_mode(argv, default, name, mode):
    """What to call, and its config and workdir."""
    try:
        if any(map(_OVERRIDE.match, argv[1:])):
            raise flags.Error(f"--mode={name} takes the run's own config: leave --config out")
        holders = {}
        for flag, value in mode.defaults.items():
            if isinstance(value, int):
                least = min(value, 1)
                most = _MOST_SEED if flag.endswith("seed") else _MOST
                holders[flag] = flags.DEFINE_integer(flag, value, mode.help, least, most)
            else:
                holders[flag] = flags.DEFINE_string(flag, value, mode.help)
        workdir = _parse_flags(argv)
        values = {flag: holder.value for flag, holder in holders.items()}
        for flag, value in values.items():
            if value is None or value == "":
                raise flags.Error(f"missing --{flag}")
        config = of_run(workdir, default)
    except flags.IllegalFlagValueError as error:
        sys.exit(_say(_ILLEGAL_INTEGER.sub(r"--\1: wanted int, got '\2'", str(error)), _BAD_FLAG))
    except flags.Error as error:
        sys.exit(_say(error, _BAD_FLAG))
    except RunError as error:
        sys.exit(_say(error, error.exit_code))
    return lambda *run: mode.main_fn(*run, **values), config, workdir


def _parse_flags(argv):
    """The workdir, once all flags are defined and parsed."""
    workdir = flags.DEFINE_string("workdir", None, "Directory of the run.")
    unused = flags.FLAGS(argv)[1:]
    if unused:
        raise flags.Error(f"unexpected argument {unused[0]!r}")
    if not workdir.value:
        raise flags.Error("missing --workdir=DIR")
    return workdir.value


class _Terminated(BaseException):
    """SIGTERM has come where no training notes it."""


def _terminate(*_: Any) -> NoReturn:
    raise _Terminated


def _exit_code(main_fn: Callable[[Config, str], Any], config: Config, workdir: str) -> int:
    # Else JAX tells at INFO of every kind of device that is not there.
    logging.getLogger("jax").setLevel(logging.WARNING)
    try:
        main_fn(config, workdir)
    except RunError as error:
        return _say(error, error.exit_code)
    except KeyboardInterrupt:
        return _say("interrupted outside training", _CTRL_C)
    except _Terminated:
        return _say("terminated outside training", _TERMINATED)
    except locate.DataError as error:
        return _say(error, _BAD_FLAG)
    except FileNotFoundError as error:
        return _say(f"missing file: {error.filename or error}", _BAD_FLAG)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _say(f"out of memory: {error}".partition("\n")[0], _BAD_FLAG)
    except ModuleNotFoundError as error:
        named = "gasn_jax[" in str(error)
        extra = "" if named else "; experiments need the extra gasn_jax[experiments]"
        return _say(f"{error}{extra}", _BAD_FLAG)
    except OSError as error:
        code = _BAD_FLAG if error.errno in _KIND_ERRNOS else _BAD_WORKDIR
        if error.errno not in _DISK_ERRNOS + _KIND_ERRNOS:
            raise
        return _say(f"cannot use {error.filename or workdir}: {error.strerror}", code)
    return 0


def _parse(argv: list[str], default: Config) -> tuple[Config, str]:
    """Returns the config and the workdir; exits on anything unusable."""
    _refuse_unknown_fields(argv, default)
    try:
        config = config_flags.DEFINE_config_dataclass("config", _thaw(default), sys_argv=argv)
        workdir = _parse_flags(argv)
        return _freeze(config.value, default, "config"), workdir
    except flags.Error as error:
        sys.exit(_say(_explain(error, default), _BAD_FLAG))
    except ValueError as error:
        sys.exit(_say(f"bad config: {error}", _BAD_FLAG))


def _say(message: Any, code: int) -> int:
    line = " ".join(str(message).splitlines())
    print(line if code != _BAD_FLAG else f"{line} (see --help)", file=sys.stderr)
    return code


def _fields(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any, str]]:
    """Yields `(dotted name, type, default, comment)` of every settable field."""
    hints, comments = typing.get_type_hints(type(config)), _comments(type(config))
    for field in dataclasses.fields(config):
        name, value = prefix + field.name, getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value, f"{name}.")
        else:
            yield name, hints[field.name], value, comments.get(field.name, "")


def _comments(cls: type) -> dict[str, str]:
    """Returns the comment lines above each field, those of base classes included."""
    comments: dict[str, str] = {}
    for base in (c for c in reversed(cls.__mro__) if dataclasses.is_dataclass(c)):
        block: list[str] = []
        for line in inspect.getsource(base).splitlines():
            field = re.match(r"\s+(\w+)\s*:", line)
            if field and block:
                comments[field[1]] = " ".join(block)
            comment = re.match(r"\s+#\s*(.*)", line)
            block = [*block, comment[1]] if comment else []
    return comments


def _help(default: Any, modes: Mapping[str, Mode]) -> str:
    main = sys.modules["__main__"]
    spec = main.__spec__
    command = f"python -m {spec.name}" if spec else f"python {sys.argv[0]}"
    lines = [
        (main.__doc__ or "").strip(),
        f"\nusage: {command} --workdir=DIR [--config.FIELD=VALUE ...]\n",
        "  --workdir=DIR\n      Directory of the run; the same command resumes it.",
    ]
    for name, mode in modes.items():
        asked = " ".join(
            f"--{flag}=..." if value is None else f"[--{flag}={value}]"
            for flag, value in mode.defaults.items()
        )
        lines.append(f"  --mode={name} {asked}\n      {mode.help}")
    for name, hint, value, comment in _fields(default):
        lines.append(f"  --config.{name}={value}  ({_type_name(hint)})")
        lines.extend([f"      {comment}"] if comment else [])
    return "\n".join(lines) + "\n"


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def _refuse_unknown_fields(argv: Sequence[str], default: Any) -> None:
    # Here, since ml_collections answers with the KeyError of a class nobody wrote.
    known = {name for name, *_ in _fields(default)}
    for override in filter(None, map(_OVERRIDE.match, argv[1:])):
        if override[1] not in known:
            close = difflib.get_close_matches(override[1], known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            sys.exit(_say(f"unknown config field {override[1]!r}{hint}", _BAD_FLAG))


def _explain(error: flags.Error, default: Any) -> str:
    illegal = _ILLEGAL_VALUE.match(str(error))
    if not illegal:
        return str(error)
    types = {name: _type_name(hint) for name, hint, *_ in _fields(default)}
    return f"--config.{illegal[1]}: wanted {types.get(illegal[1])}, got {illegal[2]!r}"


def _thaw(config: Any) -> Any:
    """Returns a mutable twin: ml_collections assigns overrides, and cannot read string hints."""
    hints, fields = typing.get_type_hints(type(config)), []
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if dataclasses.is_dataclass(value):
            value = _thaw(value)
            hint = type(value)
        fields.append((field.name, hint, dataclasses.field(default_factory=lambda v=value: v)))
    return dataclasses.make_dataclass(type(config).__name__, fields)()


def _freeze(twin: Any, default: Any, name: str) -> Any:
    """Returns the values of `twin` as a config of `default`'s class, validated by it."""
    hints, values = typing.get_type_hints(type(default)), {}
    for field in dataclasses.fields(default):
        value, old = getattr(twin, field.name), getattr(default, field.name)
        if dataclasses.is_dataclass(old):
            value = _freeze(value, old, f"{name}.{field.name}")
        elif isinstance(value, tuple):
            value = _typed_items(value, hints[field.name], f"--{name}.{field.name}")
        for item in value if isinstance(value, tuple) else (value,):
            if type(item) is int and abs(item) > _MOST and not field.name.endswith("seed"):
                raise flags.Error(f"--{name}.{field.name}: wanted -{_MOST} to {_MOST}, got {item}")
        values[field.name] = value
    return type(default)(**values)


def _typed_items(items: tuple[Any, ...], hint: Any, name: str) -> tuple[Any, ...]:
    kind = (*typing.get_args(hint), object)[0]
    if kind is float:
        items = tuple(float(item) if type(item) is int else item for item in items)
    for item in items:
        if not isinstance(item, kind) or (kind is int and isinstance(item, bool)):
            raise flags.Error(f"{name}: wanted {_type_name(hint)}, got {items!r}")
    return items
