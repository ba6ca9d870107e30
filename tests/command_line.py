"""An experiment's command line, run inside the test's own process."""

from absl import flags

from experiments import common


def outcome(main_fn, default, arguments, modes=None):
    """The exit code of an experiment that is given these arguments; lets many be tried."""
    try:
        argv = ["experiment", *arguments]
        return common._exit_code(*common._parse_command(argv, main_fn, default, modes or {}))
    except SystemExit as exit_:
        return exit_.code
    finally:
        # Removes the flags that the command line has defined.
        defined = ["workdir", *(flag for mode in (modes or {}).values() for flag in mode.defaults)]
        for name in list(flags.FLAGS):
            if name in defined or name.split(".")[0] == "config":
                delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()
