"""The command: arguments, exit statuses, wiring. Judges nothing and formats nothing.

Exit statuses: DESIGN.md's table. `main` prints the traceback of a crash and returns 3, for Python's
own status of a crash is 1, and 1 means a faulty cluster here.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final

from kube_gpucheck.cli import signals, streams
from kube_gpucheck.cli.arguments import make_parser, refuse_later
from kube_gpucheck.errors import GpucheckError, UsageError
from kube_gpucheck.model import EXIT_USAGE

EXIT_ERROR: Final = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status. Writes to standard output and error, and the files asked for."""
    streams.prepare()
    with signals.heeded() as heard:
        return _guarded(arguments, heard)


def _guarded(arguments: Sequence[str] | None, heard: list[str]) -> int:
    """Return the exit status of the command, whatever becomes of it. `heard`: the signal that ended it."""
    try:
        return _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except UsageError as error:
        streams.note(str(error))
        return EXIT_USAGE
    except GpucheckError as error:
        streams.note(str(error))
        return EXIT_ERROR
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except OSError as error:
        streams.note(f"the output cannot be written: {error.strerror or error}")
        return EXIT_ERROR
    except KeyboardInterrupt:
        streams.note("interrupted" if heard in ([], ["SIGINT"]) else f"interrupted ({heard[0]})")
        return EXIT_ERROR
    except Exception:  # noqa: BLE001  the last line of defence: Python would exit 1, which means a faulty cluster
        traceback.print_exc()
        streams.note("this is a defect of gpucheck; please report the lines above")
        return EXIT_ERROR


def _dispatch(arguments: list[str]) -> int:
    refuse_later(arguments)
    parser = make_parser()
    options = parser.parse_args(arguments)
    match options.command:
        case "run":
            from kube_gpucheck.cli.run import run  # noqa: PLC0415  --help pays for none of the commands

            return run(options)
        case "collect":
            from kube_gpucheck.cli.run import collect  # noqa: PLC0415  likewise

            return collect(options)
        case "serve":
            from kube_gpucheck.cli.serve import serve  # noqa: PLC0415  likewise

            return serve(options)
        case "import":
            from kube_gpucheck.cli.looking import import_archive  # noqa: PLC0415  likewise

            return import_archive(options)
        case "list":
            from kube_gpucheck.cli.looking import list_things  # noqa: PLC0415  likewise

            return list_things(options)
        case "show":
            from kube_gpucheck.cli.run import show_one  # noqa: PLC0415  likewise

            return show_one(options)
        case "explain":
            from kube_gpucheck.cli.looking import explain  # noqa: PLC0415  likewise

            return explain(options)
        case _:
            parser.print_help()
            return EXIT_USAGE
