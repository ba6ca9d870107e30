"""An experiment's command line, run inside the test's own process."""

from absl import flags

from experiments import common


def outcome(main_fn, default, arguments):
    """The exit code of an experiment that is given these arguments; lets many be tried."""
    try:
        config, workdir = common._parse(["experiment", *arguments], default)
        return common._exit_code(main_fn, config, workdir)
    except SystemExit as exit_:
        return exit_.code
    finally:
        forget()


def forget():
    """Removes the flags that a command line has defined."""
    for name in list(flags.FLAGS):
        if name in ("workdir", "num_samples", "sample_seed") or name.split(".")[0] == "config":
            delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
