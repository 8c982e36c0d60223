"""The command: arguments, exit statuses, wiring. Judges nothing and formats nothing.

Exit statuses: DESIGN.md's table. `main` prints the traceback of a crash and returns 3, for Python's
own status of a crash is 1, and 1 means a faulty cluster here.
"""

import argparse
import contextlib
import datetime
import enum
import io
import os
import shlex
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

import kube_gpucheck
from kube_gpucheck.errors import GpucheckError, UsageError
from kube_gpucheck.model import EXIT_USAGE, Layer, Seen, Severity

if TYPE_CHECKING:
    from kube_gpucheck.diagnose import Catalogue
    from kube_gpucheck.evidence import Bundle, Cluster
    from kube_gpucheck.simulate.scenario import Library

Member = TypeVar("Member", bound=enum.Enum)
EXIT_ERROR: Final = 3
_LATER_OPTIONS: Final = frozenset({
    "--profile", "--simulate", "--host", "--context", "--kubeconfig", "--pod", "--probe", "--active",
    "--wait", "--timeout", "--plan", "--html", "--markdown", "--bundle", "--redact",
})  # fmt: skip
_ASCII: Final = {"✓": "ok", "✗": "FAULT", "·": "-", "…": "..."}
_LATER_COMMANDS: Final = ("collect", "show", "diff", "serve", "cleanup", "report")

_DESCRIPTION: Final = """\
Does GPU work run on this Kubernetes cluster, from the driver to the dashboard, and if
not, which one thing is broken first? gpucheck judges every layer, names one root cause
with its remedy, and writes JUnit and JSON."""
_EXAMPLES: Final = """\
first steps:
  gpucheck run --from tutorial/06-plugin-undesired   judge a simulated cluster with one fault
  gpucheck list scenarios                            what else can be simulated
  gpucheck run --from my-bundle --junit out.xml      judge recorded evidence, as a CI job would
  gpucheck explain PLG-002                           what a check judges, and what it can betray

exit status: 0 conforms · 1 faults · 2 wrong usage · 3 gpucheck failed · 4 something is unknown"""
_RUN_EPILOG: Final = """\
examples:
  gpucheck run --from tutorial/04-toolkit
  gpucheck run --from bundle.tar.gz --layer driver --layer runtime
  gpucheck run --from bundle/ -k 'PLG-005 or RTC' -v
  gpucheck run --from bundle/ --node gpu-1,gpu-2 --fail-on critical --json - -q

exit status: 0 conforms · 1 faults · 2 wrong usage · 3 gpucheck failed · 4 something is unknown"""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are usage errors in our words."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; '{self.prog} --help' shows what there is")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status. Writes to standard output and error, and the files asked for."""
    _prepare_streams()
    try:
        return _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except UsageError as error:
        print(f"gpucheck: {error}", file=sys.stderr)
        return EXIT_USAGE
    except GpucheckError as error:
        print(f"gpucheck: {error}", file=sys.stderr)
        return EXIT_ERROR
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except OSError as error:
        print(f"gpucheck: the output cannot be written: {error.strerror or error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("gpucheck: interrupted", file=sys.stderr)
        return EXIT_ERROR
    except Exception:  # noqa: BLE001  the last line of defence: Python would exit 1, which means a faulty cluster
        traceback.print_exc()
        print("gpucheck: this is a defect of gpucheck; please report the lines above", file=sys.stderr)
        return EXIT_ERROR


def _prepare_streams() -> None:
    """Let a stream that is closed swallow what is written, and one of few letters replace what it lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _dispatch(arguments: list[str]) -> int:
    _refuse_later(arguments)
    options = _parser().parse_args(arguments)
    match options.command:
        case "run":
            return _run(options)
        case "import":
            return _import(options)
        case "list":
            return _list(options)
        case "explain":
            return _explain(options)
        case _:
            _parser().print_help()
            return EXIT_USAGE


def _refuse_later(arguments: Sequence[str]) -> None:
    """Refuse by name what a later release brings, before argparse calls it unrecognised."""
    for word in arguments:
        name = word.split("=", 1)[0]
        if name in _LATER_OPTIONS:
            way_out = "this release judges evidence on disk; use 'gpucheck run --from BUNDLE|SCENARIO'"
            msg = f"{name} is not there yet in {kube_gpucheck.__version__}: {way_out}"
            raise UsageError(msg)
    if arguments and arguments[0] in _LATER_COMMANDS:
        there = "this release has run, import, list and explain"
        msg = f"'{arguments[0]}' is not there yet in {kube_gpucheck.__version__}; {there}"
        raise UsageError(msg)


def _parser() -> _Parser:
    parser = _Parser(
        prog="gpucheck",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gpucheck {kube_gpucheck.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    run = commands.add_parser(
        "run",
        help="judge evidence and name the first cause",
        description="Judge evidence, name the first cause, say what to do.",
        epilog=_RUN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    source = run.add_argument_group("what is judged")
    source.add_argument(
        "--from",
        dest="origin",
        metavar="BUNDLE|SCENARIO",
        help="a bundle's folder or .tar.gz, or a scenario by name ('gpucheck list scenarios')",
    )
    source.add_argument(
        "--node",
        action="append",
        default=[],
        metavar="N[,N]",
        help="judge these nodes only, and take them for GPU nodes",
    )
    source.add_argument(
        "--expect-gpu-nodes", type=int, metavar="N", help="how many GPU nodes there must be (0: none is fine)"
    )
    chosen = run.add_argument_group("which checks")
    chosen.add_argument(
        "-k",
        dest="expression",
        metavar="EXPR",
        help="ids or words, joined with and, or, not: 'PLG-005 or driver'",
    )
    chosen.add_argument(
        "--layer",
        action="append",
        default=[],
        metavar="LAYER",
        help=f"this layer only; can be repeated ({', '.join(layer.value for layer in Layer)})",
    )
    chosen.add_argument("--checks", type=Path, metavar="DIR", help="your own checks (check_*.py) beside gpucheck's")
    verdict = run.add_argument_group("the verdict")
    verdict.add_argument(
        "--fail-on",
        default="major",
        metavar="SEVERITY",
        help="exit 1 from this severity on: critical, major (default), minor or info",
    )
    verdict.add_argument(
        "--allow-unknown", action="store_true", help="exit 0 although something could not be judged, if anything passed"
    )
    output = run.add_argument_group("reports")
    output.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML, a suite a layer")
    output.add_argument(
        "--json", metavar="FILE", help="write the JSON report ('-': to standard output, instead of the text)"
    )
    output.add_argument("-q", "--quiet", action="store_true", help="the verdict and the first cause only")
    output.add_argument("-v", "--verbose", action="count", default=0, help="every check, and what gpucheck itself did")

    importing = commands.add_parser(
        "import",
        help="turn another tool's archive into a bundle",
        description="Turn another tool's archive into a bundle, which 'gpucheck run --from' judges.",
        allow_abbrev=False,
    )
    importing.add_argument(
        "archive",
        type=Path,
        metavar="DIR",
        help="a recording: objects.json with kubectl lists, logs/, host/, api/; or host dumps alone",
    )
    importing.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE", help="the folder to create")
    importing.add_argument(
        "--as", dest="kind", metavar="KIND", help="the archive's kind, if it is not recognised: recording"
    )

    listing = commands.add_parser(
        "list", help="show checks, causes, scenarios or layers", description="Show what there is.", allow_abbrev=False
    )
    listing.add_argument("what", choices=("checks", "causes", "scenarios", "layers"))
    listing.add_argument("--checks", type=Path, metavar="DIR", help="your own checks beside gpucheck's")

    explain = commands.add_parser(
        "explain",
        help="explain checks and causes by id",
        description="Explain checks and causes by id.",
        allow_abbrev=False,
    )
    explain.add_argument(
        "ids", nargs="+", metavar="ID", help="a check (PLG-002), a cause (nfd-label-missing) or a layer"
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    fail_on = _choice("--fail-on", options.fail_on, Severity)
    layers = tuple(_choice("--layer", name, Layer) for name in options.layer)
    nodes = tuple(dict.fromkeys(name for given in options.node for name in given.split(",") if name))
    for name, given in (
        ("-k", options.expression),
        ("--from", options.origin),
        *(("--node", one) for one in options.node),
    ):
        if given is not None and not given.strip(", "):
            msg = f"{name} '': empty; leave the option out, or give it a value"
            raise UsageError(msg)
    if options.origin is None:
        way_out = "try 'gpucheck run --from tutorial/06-plugin-undesired', or give a bundle"
        msg = f"no evidence was named: this release does not read live clusters yet; {way_out}"
        raise UsageError(msg)
    if options.expect_gpu_nodes is not None and options.expect_gpu_nodes < 0:
        msg = f"--expect-gpu-nodes {options.expect_gpu_nodes}: expected 0 or more"
        raise UsageError(msg)

    from kube_gpucheck import diagnose, runner  # noqa: PLC0415  --help pays for none of these
    from kube_gpucheck.diagnose.conclusion import Choice, conclude  # noqa: PLC0415  likewise
    from kube_gpucheck.evidence import Cluster  # noqa: PLC0415  likewise

    with _bundle(options.origin) as bundle:
        said = {
            "node": ",".join(nodes),
            "expect-gpu-nodes": "" if options.expect_gpu_nodes is None else str(options.expect_gpu_nodes),
            "k": options.expression or "",
            "layer": ",".join(layer.value for layer in layers),
            "fail-on": fail_on.value,
            "allow-unknown": "yes" if options.allow_unknown else "",
        }
        cluster = Cluster(bundle.with_options({name: value for name, value in said.items() if value}))
        _verify_nodes(nodes, cluster)
        narrowed = bool(options.expression or layers)
        chosen = runner.select(options.expression or "", layers, options.checks) if narrowed else None
        results = runner.judge(cluster, nodes=nodes, extra=options.checks)
        diagnosis = diagnose.diagnose(results, cluster, _catalogue(), fail_on=fail_on)
        scope = [f"{name} {said[name]}" for name in ("layer", "k", "node") if said[name]]
        choice = Choice(
            fail_on=fail_on,
            allow_unknown=options.allow_unknown,
            selected=chosen,
            scope="judged: " + ", ".join(scope) if scope else "",
            later=_LATER_OPTIONS,
        )
        finished = datetime.datetime.now(datetime.timezone.utc)
        run = conclude(results, cluster, diagnosis, choice, finished=finished, tool_version=kube_gpucheck.__version__)
    if options.junit is not None:
        from kube_gpucheck.report import junit  # noqa: PLC0415  only where asked for

        _write("--junit", options.junit, junit.render(run))
    if options.json is not None:
        from kube_gpucheck.report import json  # noqa: PLC0415  only where asked for

        if options.json == "-":
            sys.stdout.buffer.write(json.render(run))
            sys.stdout.flush()
        else:
            _write("--json", Path(options.json), json.render(run))
    if options.json != "-":
        from kube_gpucheck.report import terminal  # noqa: PLC0415  rich is not for --help

        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        _print(terminal.render(run, width=_width(), colour=colour, verbosity=options.verbose, quiet=options.quiet))
    return run.exit_code


def _import(options: argparse.Namespace) -> int:
    from kube_gpucheck.evidence.bundle import write_bundle  # noqa: PLC0415  --help pays for none of these
    from kube_gpucheck.imports import recording  # noqa: PLC0415  likewise

    if options.kind not in {None, recording.KIND}:
        msg = f"--as {options.kind}: unknown kind; this release imports '{recording.KIND}'"
        raise UsageError(msg)
    if not options.archive.is_dir():
        seen = "a file; unpack it first" if _exists(str(options.archive)) else "no such folder"
        msg = f"{options.archive}: {seen}; give the folder of a recording"
        raise UsageError(msg)
    if options.output.resolve().is_relative_to(options.archive.resolve()):
        msg = f"-o {options.output}: inside the recording, which must stay as it is; name a folder elsewhere"
        raise UsageError(msg)
    if options.kind is None and not recording.recognise(options.archive):
        seen = "not a recording (no objects.json with kubectl lists, no host dumps)"
        msg = f"{options.archive}: {seen}; 'gpucheck import --help' says what is read"
        raise UsageError(msg)
    manifest, files = recording.import_recording(options.archive, name=None)
    write_bundle(options.output, manifest, files)
    lost = f", {len(manifest.missing)} could not be had when it was recorded" if manifest.missing else ""
    following = f"gpucheck run --from {shlex.quote(str(options.output))}"
    _print(f"{options.output}: {len(files)} files of evidence{lost}\nnext: {following}\n")
    return 0


def _list(options: argparse.Namespace) -> int:
    from kube_gpucheck.report import listing  # noqa: PLC0415  --help pays for none of these

    match options.what:
        case "checks":
            from kube_gpucheck import runner  # noqa: PLC0415  likewise

            _print(listing.checks(runner.list_checks(options.checks), width=_width()))
        case "causes":
            _print(
                listing.table(
                    ((cause.id, cause.position.value, cause.title) for cause in _catalogue().causes), width=_width()
                )
            )
        case "scenarios":
            library = _library()
            _print(
                listing.table(
                    ((name, library.about(name)) for name in library.scenarios() if not name.startswith("checks/")),
                    width=_width(),
                )
            )
        case _:
            _print("".join(f"{layer.value}\n" for layer in Layer))
    return 0


def _explain(options: argparse.Namespace) -> int:
    from kube_gpucheck import runner  # noqa: PLC0415  --help pays for none of these
    from kube_gpucheck.report import listing  # noqa: PLC0415  likewise

    catalogue = _catalogue()
    infos = {info.id: info for info in runner.list_checks()}
    pages: list[str] = []
    for name in options.ids:
        cause = catalogue.by_id.get(name.lower())
        if name.upper() in infos:
            info = infos[name.upper()]
            causes = [(one.id, one.title) for one in catalogue.by_check.get(info.id, ())]
            pages.append(listing.check_page(info, causes, width=_width()))
        elif cause is not None:
            pages.append(
                listing.cause_page(
                    f"{cause.id}  {cause.title}",
                    facts=[
                        ("layer", cause.position.value),
                        ("first seen as a fault of", ", ".join(cause.claims)),
                        *(("speaks for it", str(sign)) for sign in (*cause.needs, *cause.hints)),
                        *(("speaks against it", str(sign)) for sign in cause.against),
                        ("interrupts", cause.interrupts),
                    ],
                    remedies=list(cause.remedy.items()),
                    proof=f"gpucheck run -k {cause.proves}",
                    width=_width(),
                )
            )
        elif name.lower() in {layer.value for layer in Layer}:
            pages.append(
                listing.checks((info for info in infos.values() if info.layer.value == name.lower()), width=_width())
            )
        else:
            msg = (
                f"'{name}' is no check, cause or layer; 'gpucheck list checks' and 'gpucheck list causes' show the ids"
            )
            raise UsageError(msg)
    _print("\n".join(pages))
    return 0


@contextlib.contextmanager
def _bundle(origin: str) -> "Iterator[Bundle]":
    """Open a bundle, or build a scenario into a temporary folder, which is removed at the end."""
    from kube_gpucheck.evidence.bundle import open_bundle  # noqa: PLC0415  --help pays for none of these

    library = _library()
    if _exists(origin) or not library.has(origin):
        if not _exists(origin):
            msg = f"'{origin}' is neither a bundle's path nor a scenario; 'gpucheck list scenarios' shows the scenarios"
            raise UsageError(msg)
        yield open_bundle(Path(origin))
        return
    with tempfile.TemporaryDirectory(prefix="gpucheck.") as scratch:
        folder = Path(scratch) / "bundle"
        library.save(origin, folder)
        yield open_bundle(folder)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError) as error:
        msg = f"{path}: {getattr(error, 'strerror', None) or error}; name a path that can be read"
        raise UsageError(msg) from error


def _library() -> "Library":
    from kube_gpucheck import assets  # noqa: PLC0415  --help pays for none of these
    from kube_gpucheck.simulate.scenario import Library  # noqa: PLC0415  likewise

    return Library(assets.folder("fixtures"))


def _catalogue() -> "Catalogue":
    from kube_gpucheck.diagnose import load_catalogue  # noqa: PLC0415  --help pays for none of these

    folder = resources.files("kube_gpucheck") / "causes"
    return load_catalogue(
        {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.name.endswith(".yaml")}
    )


def _verify_nodes(names: tuple[str, ...], cluster: "Cluster") -> None:
    nodes = cluster.nodes
    if not names or not isinstance(nodes, Seen):
        return
    there = {node.name for node in nodes.value}
    for name in names:
        if name not in there:
            msg = f"--node {name}: no such node in the evidence; there are {', '.join(sorted(there)[:20]) or 'none'}"
            raise UsageError(msg)


def _choice(option: str, given: str, kind: type[Member]) -> Member:
    try:
        return kind(given)
    except ValueError:
        msg = f"{option} {given}: expected one of {', '.join(one.value for one in kind)}"
        raise UsageError(msg) from None


def _write(option: str, path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        msg = f"{option} {path}: {error.strerror or error}; name a file that can be written"
        raise UsageError(msg) from error


def _width() -> int:
    return max(60, min(shutil.get_terminal_size((100, 24)).columns, 160))


def _print(text: str) -> None:
    """Print a report; a character that the terminal's encoding lacks is replaced, never a crash."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        "✓✗·…".encode(encoding)
    except UnicodeEncodeError:
        for mark, word in _ASCII.items():
            text = text.replace(mark, word)
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
