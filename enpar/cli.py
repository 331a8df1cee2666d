"""The command line: verb, settings, exit status. No logic of the stages lives here."""

import argparse
import importlib
import json
import logging
import os
import sys
import textwrap
from collections.abc import Sequence
from types import ModuleType

from enpar import __version__
from enpar.errors import RunError, UserError
from enpar.settings import Settings, describe, parse
from enpar.verbs import VERBS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 2 the user's input is at fault, 1 anything else."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if odd := [argument for argument in rest if argument.startswith("-")]:
        parser.error(f"unknown option {odd[0]}")
    options.settings += rest  # settings behind an option
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING,
        format="%(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("enpar").setLevel(logging.DEBUG if options.verbose else logging.INFO)
    if not options.verbose:  # its retries say nothing that our own error does not
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    try:
        job = parse(VERBS[options.verb], options.settings)
        # A stage is imported only when it is asked for: torch, Ray and spaCy take seconds.
        result = _stage(options.verb).run(job)
    except UserError as error:
        print(f"enpar: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"enpar: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("enpar: interrupted; run the same command again", file=sys.stderr)
        return 1
    except BrokenPipeError:  # who reads has enough; Python's own flush at the end must not fail on that again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if result is not None:
        print(json.dumps(result, ensure_ascii=False), flush=True)
    return 0


def _stage(verb: str) -> ModuleType:
    # A module with `run(job)`.
    return importlib.import_module("enpar.corpora.fetch" if verb == "fetch" else f"enpar.{verb}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="enpar",
        description="Pre-train entity and entity-pair encoders on raw text; extract entities and relations.",
        epilog="`enpar VERB --help` lists the settings of a command.",
    )
    parser.add_argument("--version", action="version", version=f"enpar {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, kind in VERBS.items():
        summary = (kind.__doc__ or "").strip()
        command = verbs.add_parser(
            verb,
            help=summary,
            description=summary,
            epilog=_settings_help(kind),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument(
            "settings", nargs="*", metavar="JOB.yaml | key=value", help="settings; later ones win over earlier ones"
        )
        command.add_argument("-v", "--verbose", action="store_true", help="show what the libraries have to say")
    return parser


def _settings_help(kind: type[Settings]) -> str:
    if kind.variants:
        return "\n\n".join(
            textwrap.fill(" ".join((variant.__doc__ or "").split()), 100) + f"\nstage={stage}, and {_list(variant)}"
            for stage, variant in kind.variants.items()
        )
    return _list(kind)


def _list(kind: type[Settings]) -> str:
    lines = ["settings:"]
    for key, default, description in describe(kind):
        lines.append(f"  {key} ({default})" if default != "required" else f"  {key} (must be given)")
        lines += textwrap.wrap(description, 100, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)
