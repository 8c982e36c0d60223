"""Whether a result is final: whether a later look may show something else with nobody doing anything."""

from collections.abc import Iterable

import msgspec

from kube_gpucheck.diagnose.relations import Relations
from kube_gpucheck.evidence import Cluster
from kube_gpucheck.evidence.progress import Step
from kube_gpucheck.model import Finding, Missing, MissingKind, Run, Verdict

_PASSING_TROUBLE = frozenset({MissingKind.TIMEOUT, MissingKind.ERROR})
"""What could not be read for these reasons may be readable a moment later; what is forbidden stays so."""


class Outlook(msgspec.Struct, frozen=True):
    """What more waiting can bring. `reason` says why the result is final; `waits_for` is what is under way."""

    final: bool
    reason: str = ""
    waits_for: tuple[str, ...] = ()


def outlook(run: Run, cluster: Cluster) -> Outlook:
    """Return whether a run's result is final.

    It is where all that was asked for passes; where a root fault is not related to anything under way that acts
    in its layer or below; and where what is unknown cannot become known by looking again.
    """
    match run.verdict:
        case Verdict.CONFORMS:
            return Outlook(final=True, reason="everything that was asked for passes")
        case Verdict.ERROR:
            return Outlook(final=True, reason="a check crashed, which is a defect of gpucheck")
        case Verdict.FAULTS | Verdict.UNKNOWN:
            pass
    reading = cluster.progress.steps
    if isinstance(reading, Missing):
        if reading.kind in _PASSING_TROUBLE:
            return Outlook(final=False, waits_for=(f"an answer of the API server: {reading.reason}",))
        return Outlook(final=True, reason=f"what is under way cannot be seen: {reading.reason}")
    steps = reading.value
    if run.verdict is Verdict.FAULTS:
        lasting = _lasting(run, cluster, steps)
        if lasting is not None:
            return Outlook(final=True, reason=f"no waiting heals {lasting}")
        return Outlook(final=False, waits_for=tuple(str(one) for one in steps))
    troubles = tuple(f"{one.evidence}: {one.reason}" for one in run.missing if one.kind in _PASSING_TROUBLE)
    if steps or troubles:
        return Outlook(final=False, waits_for=(*(str(one) for one in steps), *troubles))
    return Outlook(final=True, reason="what is unknown stays unknown, and nothing is under way")


def _lasting(run: Run, cluster: Cluster, steps: tuple[Step, ...]) -> str | None:
    """Return the first root fault that nothing under way can heal, in the reader's words; None if there is none."""
    relations = Relations(cluster)
    roots = (one for one in run.diagnosis.findings if one.is_root and one.judgement.severity.at_least(run.fail_on))
    lasting = [one for one in roots if not _may_heal(one, steps, relations)]
    if not lasting:
        return None
    order = {cause.id: place for place, cause in enumerate(run.diagnosis.causes)}
    first = min(
        lasting, key=lambda one: (order.get(one.cause or "", len(order)), one.check.layer.position, one.check.id)
    )
    named = first.cause or first.check.id
    return f"{named} ({first.judgement.subject}: {first.judgement.seen})"


def _may_heal(finding: Finding, steps: Iterable[Step], relations: Relations) -> bool:
    layer, subject = finding.check.layer.position, finding.judgement.subject
    return any(one.heals_from.position <= layer and relations.related(one.subject, subject) for one in steps)
