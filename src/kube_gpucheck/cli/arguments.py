"""What can be typed: commands, options and their help. Reads the command line; does nothing."""

import argparse
import enum
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn, TypeVar

import kube_gpucheck
from kube_gpucheck.errors import UsageError
from kube_gpucheck.model import Layer

Member = TypeVar("Member", bound=enum.Enum)
LATER_OPTIONS: Final = frozenset({
    "--profile", "--probe", "--active", "--plan", "--html", "--markdown", "--redact",
})  # fmt: skip
"""Options of later releases: they are refused by name, and a report that would name one says so."""
_LATER_COMMANDS: Final = ("diff", "cleanup", "report")

_DESCRIPTION: Final = """\
Does GPU work run on this Kubernetes cluster, from the driver to the dashboard, and if
not, which one thing is broken first? gpucheck judges every layer, names one root cause
with its remedy, and writes JUnit and JSON."""
_EXAMPLES: Final = """\
first steps:
  gpucheck run --simulate tutorial/06-plugin-undesired   a simulated cluster with one fault
  gpucheck run                                           the cluster that kubectl would talk to
  gpucheck list scenarios                                what else can be simulated
  gpucheck explain PLG-002                               what a check judges, and what it can betray

exit status: 0 conforms · 1 faults · 2 wrong usage · 3 gpucheck failed · 4 something is unknown"""
_RUN_EPILOG: Final = """\
examples:
  gpucheck run                                  the cluster of your kubeconfig, or of this pod; and this host's GPU
  gpucheck run --host                           this host alone: driver, GPUs, container runtime
  gpucheck run --context gpu-prod --wait 15m --junit gpucheck.xml
  gpucheck run --pod team-a/train-0             why is this pod broken, with a tenant's rights
  gpucheck run --from bundle.tar.gz --layer driver --layer runtime
  gpucheck run --simulate tutorial/04-toolkit
  gpucheck run --from bundle/ --node gpu-1,gpu-2 --fail-on critical --json - -q

exit status: 0 conforms · 1 faults · 2 wrong usage · 3 gpucheck failed · 4 something is unknown"""
_COLLECT_EPILOG: Final = """\
examples:
  gpucheck collect -o my-bundle                 then: gpucheck run --from my-bundle
  gpucheck collect --context gpu-prod -o evidence.tar.gz
  sudo gpucheck collect --host -o this-host.tar.gz

Nothing is changed in the cluster or on the host, and no Secret is read. What could not be read is in the
bundle as missing."""
_SHOW_EPILOG: Final = """\
examples:
  gpucheck show runtime gpu-0 --from bundle/       every handler and setting with the file and line that made it
  gpucheck show runtime gpu-0 --context gpu-prod
  sudo gpucheck show runtime gpu-0 --context gpu-prod --host      on gpu-0 itself

Files are known where the node's host was read; an API server alone tells of the engine's version and answers."""
_EXPLAIN_EPILOG: Final = """\
examples:
  gpucheck explain DRV-011                      what the check judges, and the causes that it can betray
  gpucheck explain xid 79                       what the kernel's log says, and what to do
  gpucheck explain nvml 15 cuda 802
  gpucheck explain label nvidia.com/gpu.replicas  who writes it, since when, and what it says"""
_SERVE_EPILOG: Final = """\
examples:
  gpucheck serve tutorial/06-plugin-undesired --kubeconfig sim.kubeconfig &
  kubectl --kubeconfig sim.kubeconfig get pods -A
  gpucheck run --kubeconfig sim.kubeconfig
  gpucheck serve complete --kubeconfig sim.kubeconfig --fault '429:pods*2'
  gpucheck serve --nodes 5000 --broken not-ready=0.01 --kubeconfig sim.kubeconfig

It listens on the loopback address alone, and ends with Ctrl-C."""


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are usage errors in our words."""

    def error(self, message: str) -> NoReturn:
        """Raise the complaint.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{message}; '{self.prog} --help' shows what there is")


def refuse_later(arguments: Sequence[str]) -> None:
    """Refuse by name what a later release brings, before argparse calls it unrecognised.

    Raises:
        UsageError: such an option or command is there.
    """
    for word in arguments:
        name = word.split("=", 1)[0]
        if name in LATER_OPTIONS:
            msg = f"{name} is not there yet in {kube_gpucheck.__version__}; leave it out"
            raise UsageError(msg)
    if arguments and arguments[0] in _LATER_COMMANDS:
        there = "this release has run, collect, import, list, explain, show and serve"
        msg = f"'{arguments[0]}' is not there yet in {kube_gpucheck.__version__}; {there}"
        raise UsageError(msg)


def make_parser() -> Parser:
    """Return the parser of the whole command."""
    parser = Parser(
        prog="gpucheck",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gpucheck {kube_gpucheck.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    _add_run(commands)
    _add_collect(commands)
    _add_import(commands)
    _add_list(commands)
    _add_explain(commands)
    _add_show(commands)
    _add_serve(commands)
    return parser


def _command(
    commands: "argparse._SubParsersAction[Parser]", name: str, *, says: str, description: str, epilog: str = ""
) -> Parser:
    return commands.add_parser(
        name,
        help=says,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _add_run(commands: "argparse._SubParsersAction[Parser]") -> None:
    run = _command(
        commands,
        "run",
        says="judge a cluster, or evidence of one, and name the first cause",
        description=(
            "Judge a cluster, name the first cause, say what to do. Reads only. With nothing said, what is found is\n"
            "judged: the cluster of the kubeconfig, or the one that this pod runs in; and this host, if it has a GPU."
        ),
        epilog=_RUN_EPILOG,
    )
    source = run.add_argument_group("what is judged")
    source.add_argument(
        "--from",
        dest="origin",
        metavar="BUNDLE|SCENARIO",
        help="evidence on disk: a bundle's folder or .tar.gz, a recipe's .yaml, or a scenario by name ('gpucheck list "
        "scenarios')",
    )
    source.add_argument(
        "--simulate",
        metavar="SCENARIO",
        help="put a scenario or bundle behind a Kubernetes API on this host, and collect from that",
    )
    _add_host(source)
    _add_access(source)
    source.add_argument(
        "--node",
        action="append",
        default=[],
        metavar="N[,N]",
        help="judge these nodes only, and take them for GPU nodes",
    )
    source.add_argument("--pod", metavar="NS/NAME", help="why is this pod broken? Needs a tenant's rights only")
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
    verdict.add_argument(
        "--wait",
        metavar="DURATION",
        help="judge again until all passes, until no waiting can heal what is broken, or so long (15m, 90s)",
    )
    output = run.add_argument_group("reports")
    output.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML, a suite a layer")
    output.add_argument(
        "--json", metavar="FILE", help="write the JSON report ('-': to standard output, instead of the text)"
    )
    output.add_argument("--bundle", type=Path, metavar="FOLDER", help="keep the evidence there (or in a .tar.gz)")
    output.add_argument(
        "-q", "--quiet", action="store_true", help="the verdict and the first cause only, and no progress"
    )
    output.add_argument("-v", "--verbose", action="count", default=0, help="every check, and what gpucheck itself did")


def _add_host(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--host",
        action="store_true",
        help="this host, as root or not; alone, or as a node of the cluster that --context or --kubeconfig names",
    )


def _add_access(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--kubeconfig", type=Path, metavar="FILE", help="instead of $KUBECONFIG and ~/.kube/config")
    group.add_argument("--context", metavar="NAME", help="a context of the kubeconfig, instead of the current one")
    group.add_argument(
        "--timeout", metavar="DURATION", help="for gathering all evidence (default 5m, of a host 90s; 30s, 1h)"
    )


def _add_collect(commands: "argparse._SubParsersAction[Parser]") -> None:
    collecting = _command(
        commands,
        "collect",
        says="only gather evidence of a cluster or of this host, into a bundle",
        description="Gather the evidence of a cluster, of this host, or of both, into a bundle, which 'gpucheck run\n"
        "--from' judges. Reads only.",
        epilog=_COLLECT_EPILOG,
    )
    collecting.add_argument(
        "-o", "--output", type=Path, required=True, metavar="BUNDLE", help="the folder or .tar.gz to create"
    )
    _add_host(collecting)  # type: ignore[arg-type]  # a parser adds arguments as a group does
    _add_access(collecting)  # type: ignore[arg-type]  # a parser adds arguments as a group does
    collecting.add_argument(
        "--pod", metavar="NS/NAME", help="only what tells of this pod; needs a tenant's rights only"
    )
    collecting.add_argument("-q", "--quiet", action="store_true", help="no progress")
    collecting.add_argument("-v", "--verbose", action="count", default=0, help="what gpucheck itself did")


def _add_import(commands: "argparse._SubParsersAction[Parser]") -> None:
    importing = _command(
        commands,
        "import",
        says="turn another tool's archive into a bundle",
        description="Turn another tool's archive into a bundle, which 'gpucheck run --from' judges.",
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


def _add_list(commands: "argparse._SubParsersAction[Parser]") -> None:
    listing = _command(
        commands, "list", says="show checks, causes, scenarios or layers", description="Show what there is."
    )
    listing.add_argument("what", choices=("checks", "causes", "scenarios", "layers"))
    listing.add_argument("--checks", type=Path, metavar="DIR", help="your own checks beside gpucheck's")


def _add_explain(commands: "argparse._SubParsersAction[Parser]") -> None:
    explain = _command(
        commands,
        "explain",
        says="explain checks and causes by id, and the driver's codes",
        description="Explain checks and causes by id, and codes of the driver, NVML and CUDA by number.",
        epilog=_EXPLAIN_EPILOG,
    )
    explain.add_argument(
        "ids",
        nargs="+",
        metavar="ID",
        help="a check (PLG-002), a cause (nfd-label-missing), a layer, or a code: xid 79, nvml 15, cuda 802",
    )


def _add_show(commands: "argparse._SubParsersAction[Parser]") -> None:
    showing = _command(
        commands,
        "show",
        says="show what is known of one thing, in a form to paste into a ticket",
        description="Show what is known of one thing. Judges nothing.",
        epilog=_SHOW_EPILOG,
    )
    showing.add_argument("what", choices=("runtime",), help="the container runtime of a node")
    showing.add_argument("name", metavar="NODE", help="the node's name")
    showing.add_argument(
        "--from",
        dest="origin",
        metavar="BUNDLE|SCENARIO",
        help="evidence on disk: a bundle's folder or .tar.gz, or a scenario by name",
    )
    showing.add_argument("--simulate", metavar="SCENARIO", help="collect from a scenario behind a Kubernetes API")
    _add_host(showing)  # type: ignore[arg-type]  # a parser adds arguments as a group does
    _add_access(showing)  # type: ignore[arg-type]  # a parser adds arguments as a group does
    showing.add_argument("-q", "--quiet", action="store_true", help="no progress")
    showing.add_argument("-v", "--verbose", action="count", default=0, help="what gpucheck itself did")


def _add_serve(commands: "argparse._SubParsersAction[Parser]") -> None:
    serving = _command(
        commands,
        "serve",
        says="put a bundle or scenario behind a Kubernetes API on this host",
        description="Put a bundle or scenario behind a real Kubernetes API on the loopback address, until Ctrl-C.",
        epilog=_SERVE_EPILOG,
    )
    serving.add_argument(
        "origin",
        nargs="?",
        metavar="BUNDLE|SCENARIO",
        help="a bundle's folder or .tar.gz, a scenario by name, or a recipe's .yaml",
    )
    serving.add_argument(
        "--kubeconfig", type=Path, required=True, metavar="FILE", help="written once the server answers"
    )
    serving.add_argument("--port", type=int, default=0, metavar="N", help="default: any that is free")
    serving.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="FAULT",
        help="misbehave on demand; can be repeated (docs/faults.md lists them)",
    )
    serving.add_argument("--script", type=Path, metavar="FILE", help="what becomes of objects that are created")
    generated = serving.add_argument_group("a generated cluster, instead of a bundle")
    generated.add_argument("--nodes", type=int, metavar="N", help="so many nodes, of which one in a hundred has no GPU")
    generated.add_argument("--gpus-per-node", type=int, metavar="N", help="default 8")
    generated.add_argument("--pods-per-node", type=int, metavar="N", help="default 8")
    generated.add_argument("--seed", type=int, metavar="N", help="the same seed makes the same cluster (default 1)")
    generated.add_argument(
        "--broken",
        action="append",
        default=[],
        metavar="KIND=SHARE",
        help="a share of nodes that is broken: not-ready=0.01; can be repeated",
    )


def choice(option: str, given: str, kind: type[Member]) -> Member:
    """Return the member of a closed set that an option names.

    Raises:
        UsageError: it names none; the message lists them.
    """
    try:
        return kind(given)
    except ValueError:
        msg = f"{option} {given}: expected one of {', '.join(one.value for one in kind)}"
        raise UsageError(msg) from None


_DURATION: Final = re.compile(r"(?:(?P<h>\d{1,6})h)?(?:(?P<m>\d{1,6})m)?(?:(?P<s>\d{1,6})s)?")


def duration_s(option: str, given: str) -> float:
    """Return the seconds of a duration such as `15m`, `90s` or `1h30m`, as kubectl writes them.

    Raises:
        UsageError: it is none, or nothing.
    """
    found = _DURATION.fullmatch(given.strip())
    parts = {unit: int(number) for unit, number in found.groupdict().items() if number} if found else {}
    seconds = parts.get("h", 0) * 3600 + parts.get("m", 0) * 60 + parts.get("s", 0)
    if not seconds:
        msg = f"{option} {given}: not a duration; write it as 90s, 15m or 1h30m"
        raise UsageError(msg)
    return float(seconds)


def namespaced(option: str, given: str) -> tuple[str, str]:
    """Return the namespace and name of `NS/NAME`.

    Raises:
        UsageError: it is written otherwise.
    """
    namespace, slash, name = given.partition("/")
    if not slash or not namespace or not name or "/" in name:
        msg = f"{option} {given}: write it as NAMESPACE/NAME"
        raise UsageError(msg)
    return namespace, name
