"""The command line: `chaffinch COMMAND CONFIG [key=value ...] [-- BEAM OPTIONS]`."""

import argparse
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Sequence

from chaffinch.jobs import kinds
from chaffinch.jobs.console import Console
from chaffinch.jobs.documents import ConfigError

DONE, FAILED, WRONG = 0, 1, 2
# What Beam puts around an error's own words, once or more.
_WRAPPED = re.compile(r"^(RuntimeError: )+(?=[\w.]+: )|( \[while running '[^']*'\])+$")

_COMMANDS = {
    "run": "score, decide, emit and report",
    "score": "measure every sample with every scorer; resumes, computes only what is missing",
    "decide": "votes, label models, keep or drop; reads score tables, never a pixel",
    "emit": "write the kept samples as shards and as a subset file",
    "report": "one self-contained report.html",
    "label": "one self-contained label.html: samples to keep or drop by hand, whose answers `labels:` takes",
    "train": "train a CLIP on shards; goes on where it was stopped",
    "doctor": "is everything in place, here and where the workers are? one line per check",
    "plan": "what will it cost? tries some shards; also sample=N shards, workers=N,M,... to forecast for",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: the command line without the program's name; the process's own by default.

    Returns:
        0 done; 1 the job failed or its counts do not add up; 2 the config or the command line is wrong.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    split = given.index("--") if "--" in given else len(given)
    options = _parse(given[:split])
    console = Console(options.quiet, options.json)
    try:
        return _run(options, console, tuple(given[split + 1 :]))
    except ConfigError as error:
        print(f"chaffinch: {error}", file=sys.stderr)  # noqa: T201
        return WRONG
    except KeyboardInterrupt:
        print("chaffinch: stopped; run the same command to go on", file=sys.stderr)  # noqa: T201
        return 130
    except Exception as error:  # the last stop: whatever failed becomes a message and an exit status
        if options.verbose:
            traceback.print_exc()
        hint = "" if options.verbose else "\n(--verbose shows where)"
        print(f"chaffinch: {_root_cause(error)}{hint}", file=sys.stderr)  # noqa: T201
        return FAILED


def _root_cause(error: BaseException) -> str:
    """One line for an error that may have come through Beam, which wraps its traceback into the message."""
    from chaffinch.jobs.experiment import JobError

    if isinstance(error, JobError):
        return str(error)
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    told = f"{type(error).__name__}: {lines[-1].strip() if lines else 'no message'}"
    return _WRAPPED.sub("", told)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads the command line; settings may stand before and after flags, which argparse alone does not allow."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    settings = [word for word in rest if hasattr(options, "settings") and not word.startswith("-")]
    if len(settings) < len(rest):
        parser.error(f"unrecognized arguments: {' '.join(word for word in rest if word not in settings)}")
    if settings:
        options.settings = [*options.settings, *settings]
    return options


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quiet", action="store_true", help="only warnings, errors and results")
    common.add_argument("--verbose", action="store_true", help="Beam's own messages and tracebacks too")
    common.add_argument("--json", action="store_true", help="the summary as one JSON object on standard output")
    parser = argparse.ArgumentParser(prog="chaffinch", description="Curates image-text data for pretraining.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", parents=[common], help="make a small pool with known noise and curate it")
    demo.add_argument("folder", nargs="?", default="chaffinch-demo", help="where to (default: chaffinch-demo)")
    demo.add_argument("--samples", type=int, default=2000, help="size of the pool (default: 2000)")
    demo.add_argument("--seed", type=int, default=0, help="of the pool (default: 0)")
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, parents=[common], help=text)
        command.add_argument("config", help="a YAML file")
        command.add_argument("settings", nargs="*", metavar="key=value", help="config entries by their dotted path")
    kind = commands.add_parser("kinds", parents=[common], help="the scorer, filter and label model kinds")
    kind.add_argument("kind", nargs="?", help="one kind's settings, columns, units and defaults")
    kind.add_argument("--page", action="store_true", help="all of it as Markdown: docs/kinds.md")
    return parser


def _run(options: argparse.Namespace, console: Console, beam_options: tuple[str, ...]) -> int:
    if options.command == "kinds":
        try:
            console.result(kinds.page().rstrip() if options.page else kinds.describe(options.kind))
        except KeyError as error:
            raise ConfigError(f"command line: {error.args[0]}") from error
        return DONE
    _set_up_logging(options.verbose)
    if options.command == "train":
        from chaffinch.jobs.train import run_train

        run_train(options.config, options.settings, console)
        return DONE
    if options.command == "plan":
        from chaffinch.jobs.plan import run_plan

        run_plan(options.config, options.settings, console, beam_options)
        return DONE
    if options.command == "doctor":
        from chaffinch.jobs.doctor import run_doctor

        run_doctor(options.config, options.settings, console, beam_options)
        return DONE
    # Beam takes a second to import; `kinds` and errors on the command line need not wait for it.
    from chaffinch.jobs.run import run_command

    if options.command == "demo":
        from chaffinch.jobs.demo.command import run_demo

        run_demo(options.folder, options.samples, options.seed, console)
        return DONE
    run_command(options.command, options.config, options.settings, console, beam_options)
    return DONE


def _set_up_logging(verbose: bool) -> None:
    """Keeps the libraries' own chatter away from the user unless it is asked for; it starts at their import."""
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, stream=sys.stderr)
    if not verbose:
        logging.getLogger("chaffinch").setLevel(logging.WARNING)  # what scorers warn of is meant for the user
        logging.getLogger("apache_beam").setLevel(logging.ERROR)
        # Tracebacks of what ends the run anyway; it is told at the end.
        for name in ("common", "worker"):
            logging.getLogger(f"apache_beam.runners.{name}").setLevel(logging.CRITICAL)
        warnings.simplefilter("ignore")


if __name__ == "__main__":
    sys.exit(main())
