"""Puts results, evidence and diagnosis together into the run that every renderer shows."""

import datetime
from collections.abc import Callable, Iterable

import msgspec

from kube_gpucheck.evidence import Cluster
from kube_gpucheck.model import (
    EXIT_STATUS,
    CheckResult,
    DiagnosedCause,
    Diagnosis,
    Finding,
    GpuNodes,
    Judgement,
    Layer,
    Missing,
    Outcome,
    Run,
    RunInfo,
    Seen,
    Severity,
    Subject,
    judge_run,
)


class Choice(msgspec.Struct, frozen=True):
    """What the user chose of a run.

    `selected` are the chosen checks (None: all), `scope` says how they were chosen: everything is judged, since a
    cause is found among all layers, and only what was chosen is shown and counts. `later` are options that this
    release refuses: where one would ask for evidence, the report says so. `only` is the one subject that the
    user asks about (`--pod`): its judgements count, and the causes that explain them are shown.
    """

    fail_on: Severity = Severity.MAJOR
    allow_unknown: bool = False
    selected: frozenset[str] | None = None
    scope: str = ""
    later: frozenset[str] = frozenset()
    only: Subject | None = None


def conclude(
    results: tuple[CheckResult, ...],
    cluster: Cluster,
    diagnosis: Diagnosis,
    choice: Choice,
    *,
    finished: datetime.datetime,
    tool_version: str,
) -> Run:
    """Return the whole run: its verdict, its denominator, and which layers are not installed."""
    scope, fail_on = choice.scope, choice.fail_on
    selected = choice.selected
    if selected is not None:
        results = tuple(result for result in results if result.info.id in selected)
        diagnosis = _narrowed(diagnosis, lambda finding: finding.check.id in selected)
    if choice.only is not None:
        results = tuple(_of_subject(result, choice.only) for result in results)
        diagnosis = _narrowed(diagnosis, lambda finding: finding.judgement.subject == choice.only)
    if isinstance(cluster.items("nodes"), Missing) and "nodes" not in cluster.bundle.manifest.asked.api:
        scope = "; ".join(filter(None, (scope, "no cluster was looked at")))
    verdict = judge_run(results, fail_on=fail_on, allow_unknown=choice.allow_unknown)
    manifest = cluster.bundle.manifest
    first = next((cause.id for cause in diagnosis.causes if cause.severity.at_least(fail_on)), None)
    return Run(
        tool_version=tool_version,
        info=RunInfo(
            id=manifest.run.id,
            started=_stamp(manifest.run.started),
            finished=_stamp(finished),
            profile=manifest.run.profile,
            source=manifest.run.source,
            simulated=manifest.simulated,
            where=_where(cluster),
            options=manifest.run.options,
        ),
        verdict=verdict,
        exit_code=EXIT_STATUS[verdict],
        fail_on=fail_on,
        first_cause=first,
        nodes=_gpu_nodes(results, cluster),
        diagnosis=diagnosis,
        results=tuple(_with_honest_options(result, choice.later) for result in results),
        missing=manifest.missing,
        scope=scope,
        layers_not_installed=_not_installed(results),
    )


def _of_subject(result: CheckResult, subject: Subject) -> CheckResult:
    """Return what a check says of one subject; a check that is not about it says that it is not applicable."""
    passed = tuple(one for one in result.passed if one == subject)
    others = tuple(one for one in result.others if one.subject == subject)
    if not passed and not others:
        reason = f"it judges no {subject.kind.value}, or not this one"
        others = (Judgement(result.info.id, subject, Outcome.NOT_APPLICABLE, result.info.severity, reason=reason),)
    return msgspec.structs.replace(result, passed=passed, others=others)


def _narrowed(diagnosis: Diagnosis, wanted: Callable[[Finding], bool]) -> Diagnosis:
    """Return the diagnosis of the wanted findings: the causes that explain one of their faults."""
    findings = tuple(one for one in diagnosis.findings if wanted(one))
    causes: list[DiagnosedCause] = []
    for cause in diagnosis.causes:
        mine = [one for one in findings if one.cause == cause.id and one.judgement.outcome is Outcome.FAULT]
        if mine:
            worst = min((one.judgement.severity for one in mine), key=lambda severity: severity.rank)
            causes.append(msgspec.structs.replace(cause, severity=worst))
    return Diagnosis(tuple(causes), diagnosis.candidates, findings)


def _with_honest_options(result: CheckResult, later: frozenset[str]) -> CheckResult:
    if not any(one.option in later for one in result.others):
        return result
    others = (
        msgspec.structs.replace(one, option=f"{one.option} (in a later release)") if one.option in later else one
        for one in result.others
    )
    return msgspec.structs.replace(result, others=tuple(others))


def _stamp(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _where(cluster: Cluster) -> str:
    """Say in a few words what was looked at: the server's version, or the hosts where no API was asked."""
    discovery = cluster.discovery
    if isinstance(discovery, Seen):
        return f"cluster {discovery.value.version}".strip()
    nodes = cluster.nodes
    if isinstance(nodes, Seen) and any(isinstance(node.object, Seen) for node in nodes.value):
        return "a cluster"
    hosts = cluster.bundle.hosts
    return f"host {hosts[0]}" if len(hosts) == 1 else f"{len(hosts)} hosts"


def _gpu_nodes(results: Iterable[CheckResult], cluster: Cluster) -> GpuNodes:
    """Count GPU nodes, and those of which at least one subject was judged; say why of the rest."""
    judged: set[str] = set()
    reasons: dict[str, str] = {}
    for result in results:
        judged.update(subject.node for subject in result.passed if subject.node)
        for one in result.others:
            node = one.subject.node
            if node is None:
                continue
            if one.outcome is Outcome.FAULT:
                judged.add(node)
            elif one.outcome is Outcome.UNKNOWN:
                reasons.setdefault(node, one.reason)
    nodes = cluster.nodes
    names: set[str] = set()
    for view in nodes.value if isinstance(nodes, Seen) else ():
        signs = view.gpu_signs
        if isinstance(signs, Missing) or signs.value:
            names.add(view.name)
    unjudged = tuple((name, reasons.get(name, "nothing of it was selected")) for name in sorted(names - judged))
    return GpuNodes(len(names), len(names & judged), unjudged)


def _not_installed(results: Iterable[CheckResult]) -> dict[Layer, str]:
    """Return the layers in which every check is not applicable, with the first fact that says so."""
    reasons: dict[Layer, list[str] | None] = {}
    for result in results:
        layer = result.info.layer
        if result.passed or any(one.outcome is not Outcome.NOT_APPLICABLE for one in result.others):
            reasons[layer] = None
            continue
        so_far = reasons.setdefault(layer, [])
        if so_far is not None:
            so_far.extend(one.reason for one in result.others)
    return {layer: found[0] for layer, found in reasons.items() if found}
