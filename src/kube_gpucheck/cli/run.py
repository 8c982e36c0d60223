"""`gpucheck run` and `gpucheck collect`: gather, judge, diagnose, report."""

import argparse
import contextlib
import datetime
import gc
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

import kube_gpucheck
from kube_gpucheck import diagnose, runner
from kube_gpucheck.cli.arguments import LATER_OPTIONS, choice, duration_s, namespaced
from kube_gpucheck.cli.sources import Recorded, Source, catalogue, room_for
from kube_gpucheck.cli.streams import show, width, write
from kube_gpucheck.diagnose.conclusion import Choice, conclude
from kube_gpucheck.errors import UsageError
from kube_gpucheck.evidence import Bundle, Cluster
from kube_gpucheck.evidence.runtime_sheet import runtime_sheet
from kube_gpucheck.model import Layer, Run, Seen, Severity, Subject, SubjectKind
from kube_gpucheck.report import sheet


class Question(msgspec.Struct, frozen=True):
    """What the user wants to know, read from the command line and valid."""

    fail_on: Severity
    allow_unknown: bool
    layers: tuple[Layer, ...]
    expression: str
    nodes: tuple[str, ...]
    pod: tuple[str, str] | None
    expected_gpu_nodes: int | None
    checks: Path | None

    @property
    def said(self) -> dict[str, str]:
        """The options, as the run records them."""
        said = {
            "node": ",".join(self.nodes),
            "pod": "/".join(self.pod or ()),
            "expect-gpu-nodes": "" if self.expected_gpu_nodes is None else str(self.expected_gpu_nodes),
            "k": self.expression,
            "layer": ",".join(layer.value for layer in self.layers),
            "fail-on": self.fail_on.value,
            "allow-unknown": "yes" if self.allow_unknown else "",
        }
        return {name: value for name, value in said.items() if value}


_COLLECT_AFTER: Final = (200_000, 20, 10)
"""Objects after which Python looks for garbage that refers to itself, and how often more thoroughly: nearly all that
a run makes lives to its end, and looking through it again and again took half the time of judging 5,000 nodes."""


def run(options: argparse.Namespace) -> int:
    """Judge, and return the exit status. Writes the reports that were asked for.

    Raises:
        UsageError: an option is wrong, or there is nothing to judge.
    """
    question = _question(options)
    wait_s = duration_s("--wait", options.wait) if options.wait is not None else 0.0
    _log(options.verbose)
    with _seldom_collected(), _source(options) as source, room_for(options.bundle, "--bundle") as room:
        if wait_s:
            from kube_gpucheck.cli.wait import until_final  # noqa: PLC0415  few runs wait

            result = until_final(source, room, lambda bundle: _judge(bundle, question), limit_s=wait_s)
        else:
            result = _judge(source.gather(room / "bundle"), question)[0]
    _report(result, options)
    return result.exit_code


@contextlib.contextmanager
def _seldom_collected() -> Iterator[None]:
    """Look for garbage seldom, as long as a run lasts."""
    before = gc.get_threshold()
    gc.set_threshold(*_COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def collect(options: argparse.Namespace) -> int:
    """Only gather. Creates the bundle.

    Raises:
        UsageError: an option is wrong, there is no cluster, or the bundle cannot be written.
    """
    _log(options.verbose)
    options.origin = options.simulate = None
    with room_for(options.output, "-o") as room, _source(options) as source:
        manifest = source.gather(room / "bundle").manifest
    lost = f", {len(manifest.missing)} could not be had (bundle.json says why)" if manifest.missing else ""
    following = f"gpucheck run --from {shlex.quote(str(options.output))}"
    show(f"{options.output}: {len(manifest.files)} files of evidence{lost}\nnext: {following}\n")
    return 0


def show_one(options: argparse.Namespace) -> int:
    """Show what is known of one node's container runtime. Judges nothing.

    Raises:
        UsageError: an option is wrong, there is no such node, or no cluster.
    """
    _log(options.verbose)
    options.pod = options.bundle = options.wait = None
    with room_for(None, "--bundle") as room, _source(options) as source:
        cluster = Cluster(source.gather(room / "bundle"))
        _verify_nodes((options.name,), cluster, f"show {options.what}")
        node = cluster.node_of(options.name)
        if node is None:
            msg = f"show {options.what} {options.name}: the evidence has no list of nodes to find it in"
            raise UsageError(msg)
        show(sheet.render(runtime_sheet(node)))
    return 0


def _question(options: argparse.Namespace) -> Question:
    """Read the options that say what is to be judged, and how.

    Raises:
        UsageError: one of them is wrong.
    """
    for name, given in (
        ("-k", options.expression),
        ("--from", options.origin),
        ("--simulate", options.simulate),
        ("--context", options.context),
        *(("--node", one) for one in options.node),
    ):
        if given is not None and not given.strip(", "):
            msg = f"{name} '': empty; leave the option out, or give it a value"
            raise UsageError(msg)
    if options.expect_gpu_nodes is not None and options.expect_gpu_nodes < 0:
        msg = f"--expect-gpu-nodes {options.expect_gpu_nodes}: expected 0 or more"
        raise UsageError(msg)
    return Question(
        fail_on=choice("--fail-on", options.fail_on, Severity),
        allow_unknown=options.allow_unknown,
        layers=tuple(choice("--layer", name, Layer) for name in options.layer),
        expression=options.expression or "",
        nodes=tuple(dict.fromkeys(name for given in options.node for name in given.split(",") if name)),
        pod=None if options.pod is None else namespaced("--pod", options.pod),
        expected_gpu_nodes=options.expect_gpu_nodes,
        checks=options.checks,
    )


@contextlib.contextmanager
def _source(options: argparse.Namespace) -> Iterator[Source]:
    """Open what the options name: evidence on disk, a simulated cluster, or a live one.

    Raises:
        UsageError: they name two of them, or what is named is not there.
    """
    named = {"--from": options.origin, "--simulate": options.simulate}
    named["--kubeconfig or --context"] = options.kubeconfig or options.context
    given = [name for name, value in named.items() if value is not None]
    if len(given) > 1:
        msg = f"{' and '.join(given)}: one run judges one source; give one of them"
        raise UsageError(msg)
    for name in ("origin", "simulate", "pod"):
        if options.host and getattr(options, name) is not None:
            option = "--from" if name == "origin" else f"--{name}"
            msg = f"--host and {option}: one is this host, the other is elsewhere; leave one of them out"
            raise UsageError(msg)
    if options.origin is not None:
        for name in ("bundle", "timeout", "wait"):
            if getattr(options, name) is not None:
                msg = f"--{name} with --from: the evidence is on disk and does not change; leave one of them out"
                raise UsageError(msg)
        yield Recorded(options.origin)
        return
    from kube_gpucheck.cli import live  # noqa: PLC0415  who judges a bundle pays nothing for clusters

    timeout_s = duration_s("--timeout", options.timeout) if options.timeout is not None else live.DEFAULT_TIMEOUT_S
    pod = None if options.pod is None else namespaced("--pod", options.pod)
    with live.progress_of(quiet=options.quiet) as progress:
        if options.simulate is not None:
            with live.simulated(options.simulate, progress=progress, timeout_s=timeout_s, pod=pod) as source:
                yield source
        else:
            yield live.of_this_place(
                options.kubeconfig,
                options.context,
                progress=progress,
                timeout_s=timeout_s,
                pod=pod,
                host=options.host,
            )


def _judge(bundle: Bundle, question: Question) -> tuple[Run, Cluster]:
    """Judge and diagnose one bundle."""
    cluster = Cluster(bundle.with_options(question.said))
    _verify_nodes(question.nodes, cluster)
    subject = None if question.pod is None else _verify_pod(question.pod, cluster)
    narrowed = bool(question.expression or question.layers)
    chosen = runner.select(question.expression, question.layers, question.checks) if narrowed else None
    results = runner.judge(cluster, nodes=question.nodes, extra=question.checks)
    diagnosis = diagnose.diagnose(results, cluster, catalogue(), fail_on=question.fail_on)
    scope = [f"{name} {question.said[name]}" for name in ("pod", "layer", "k", "node") if name in question.said]
    decided = Choice(
        fail_on=question.fail_on,
        allow_unknown=question.allow_unknown,
        selected=chosen,
        scope="judged: " + ", ".join(scope) if scope else "",
        later=LATER_OPTIONS,
        only=subject,
    )
    finished = datetime.datetime.now(datetime.timezone.utc)
    made = conclude(results, cluster, diagnosis, decided, finished=finished, tool_version=kube_gpucheck.__version__)
    return made, cluster


def _report(result: Run, options: argparse.Namespace) -> None:
    """Render the run as the options say. Writes files and standard output."""
    if options.junit is not None:
        from kube_gpucheck.report import junit  # noqa: PLC0415  only where asked for

        write("--junit", options.junit, junit.render(result))
    if options.json is not None:
        from kube_gpucheck.report import json  # noqa: PLC0415  only where asked for

        if options.json == "-":
            sys.stdout.buffer.write(json.render(result))
            sys.stdout.flush()
            return
        write("--json", Path(options.json), json.render(result))
    from kube_gpucheck.report import terminal  # noqa: PLC0415  rich takes a while, and a program reads the JSON

    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    show(terminal.render(result, width=width(), colour=colour, verbosity=options.verbose, quiet=options.quiet))


def _verify_nodes(names: tuple[str, ...], cluster: Cluster, option: str = "--node") -> None:
    nodes = cluster.nodes
    if not names or not isinstance(nodes, Seen):
        return
    there = {node.name for node in nodes.value}
    for name in names:
        if name not in there:
            msg = f"{option} {name}: no such node in the evidence; there are {', '.join(sorted(there)[:20]) or 'none'}"
            raise UsageError(msg)


def _verify_pod(named: tuple[str, str], cluster: Cluster) -> Subject:
    """Return the named pod as a subject.

    Raises:
        UsageError: the evidence has pods, and it is not among them, or a part of the GPU stack, which no check of a
            pod judges.
    """
    pods = cluster.seen_pods
    found = {(pod.namespace, pod.name): pod for pod in pods.value} if isinstance(pods, Seen) else {}
    if isinstance(pods, Seen) and named not in found:
        near = ", ".join(sorted(name for namespace, name in found if namespace == named[0])[:10])
        there = f"namespace '{named[0]}' has {near}" if near else f"namespace '{named[0]}' has no pods that can be read"
        msg = f"--pod {'/'.join(named)}: no such pod; {there}"
        raise UsageError(msg)
    component = found[named].component if named in found else None
    if isinstance(component, Seen) and component.value is not None:
        msg = (
            f"--pod {'/'.join(named)}: a pod of the GPU stack ({component.value.value}), which is judged with its "
            "DaemonSet or Deployment; leave --pod out"
        )
        raise UsageError(msg)
    if named in found:
        return found[named].subject
    return Subject(SubjectKind.POD, named[1], namespace=named[0])


def _log(verbosity: int) -> None:
    """Let gpucheck's own log through to standard error, from the second -v on all of it."""
    if verbosity:
        logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("kube_gpucheck").setLevel(logging.DEBUG if verbosity > 1 else logging.INFO)
