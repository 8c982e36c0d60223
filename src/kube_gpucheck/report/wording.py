"""The sentences that every report says alike: the verdict, the denominators, lists of subjects.

Takes what the run says and puts it into words; what the words stand for was decided before.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from kube_gpucheck.model import (
    THE_CLUSTER,
    CheckResult,
    DiagnosedCause,
    GpuNodes,
    MissingKind,
    Outcome,
    Run,
    Severity,
    Subject,
    SubjectKind,
    Verdict,
)
from kube_gpucheck.report.text import one_line

OUTCOME_WORDS: Final = {
    Outcome.PASS: "pass",
    Outcome.FAULT: "fault",
    Outcome.UNKNOWN: "unknown",
    Outcome.NOT_ASKED: "not asked",
    Outcome.NOT_APPLICABLE: "not applicable",
    Outcome.BROKEN: "crashed",
}

_NOUNS: Final = {
    SubjectKind.CLUSTER: "cluster",
    SubjectKind.NODE: "node",
    SubjectKind.GPU: "GPU",
    SubjectKind.DAEMONSET: "DaemonSet",
    SubjectKind.POD: "pod",
    SubjectKind.TARGET: "target",
}
_KINDS: Final = frozenset(kind.value for kind in MissingKind)


def count_of(count: int, noun: str) -> str:
    """Return the count with its noun: "1 node", "4,000 nodes"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def verdict_sentence(run: Run) -> str:
    """Return the run's answer in one sentence, a full stop at its end."""
    match run.verdict:
        case Verdict.CONFORMS:
            return _conforming(run)
        case Verdict.FAULTS:
            return _faulty(run)
        case Verdict.UNKNOWN:
            return _unknown(run)
        case Verdict.ERROR:
            return _erroneous(run)


def nodes_phrase(nodes: GpuNodes) -> str:
    """Return how many GPU nodes were judged of how many: "7 of 8 GPU nodes judged, 1 forbidden"."""
    if not nodes.gpu:
        return "no GPU node"
    phrase = f"{nodes.judged:,} of {count_of(nodes.gpu, 'GPU node')} judged"
    kinds = Counter(reason if reason in _KINDS else "not" for _, reason in nodes.missing)
    return ", ".join([phrase, *(f"{count:,} {kind}" for kind, count in kinds.items())])


def checks_phrase(results: Sequence[CheckResult]) -> str:
    """Return how many checks were judged of how many: "52 of 96 checks judged"."""
    return f"{sum(result.is_judged for result in results):,} of {count_of(len(results), 'check')} judged"


def subjects_phrase(subjects: Sequence[Subject], shown: int = 3) -> str:
    """Return the first few subjects by name, and how many more there are."""
    return _phrase([str(subject) for subject in subjects[: shown + 1]], len(subjects), shown)


def names_phrase(names: Sequence[str], shown: int = 3) -> str:
    """Return the first few names, and how many more there are: "a, b, c and 3,997 more"."""
    return _phrase(names[: shown + 1], len(names), shown)


def _phrase(names: Sequence[str], count: int, shown: int) -> str:
    safe = [one_line(name) for name in names]
    if count <= shown + 1:  # "and 1 more" takes the room that the name itself would
        return ", ".join(safe)
    return f"{', '.join(safe[:shown])} and {count - shown:,} more"


def subjects_count(subjects: Iterable[Subject]) -> str:
    """Return how many subjects of which kind: "the cluster", "1 node", "3 nodes and 8 GPUs"."""
    kinds = Counter(subject.kind for subject in subjects)
    words = [
        "the cluster" if kind is SubjectKind.CLUSTER else count_of(kinds[kind], _NOUNS[kind])
        for kind in SubjectKind
        if kind in kinds
    ]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def share_phrase(subjects: Sequence[Subject], judged: int) -> str:
    """Return the subjects with the denominator, where it is not one: "1 of 4 nodes: gpu-3"."""
    kinds = {subject.kind for subject in subjects}
    if judged <= 1 or len(kinds) > 1:
        return subjects_phrase(subjects)
    return f"{len(subjects):,} of {count_of(judged, _NOUNS[kinds.pop()])}: {subjects_phrase(subjects)}"


def reach_phrase(cause: DiagnosedCause, nodes: GpuNodes) -> str:
    """Return where a cause holds: "on 1 of 1 GPU nodes", "on 2 pods", "on the cluster"."""
    if cause.gpu_nodes:
        return f"on {len(cause.gpu_nodes):,} of {nodes.gpu:,} GPU nodes"
    return f"on {subjects_count(cause.subjects or (THE_CLUSTER,))}"


def counts_phrase(result: CheckResult) -> str:
    """Return how many subjects had which outcome, the subjects of all outcomes last: "7 pass, 1 fault of 8"."""
    counts = {outcome: result.count(outcome) for outcome in Outcome}
    said = ", ".join(f"{count:,} {OUTCOME_WORDS[outcome]}" for outcome, count in counts.items() if count)
    return f"{said} of {sum(counts.values()):,}" if said else "no subject"


def last_line(traceback: str) -> str:
    """Return the line of a traceback that names the exception."""
    lines = [line for line in traceback.splitlines() if line.strip()]
    return one_line(lines[-1]) if lines else "no traceback"


def _conforming(run: Run) -> str:
    unknown = sum(result.count(Outcome.UNKNOWN) > 0 for result in run.results)
    lesser = sum(bool(result.faults) for result in run.results)
    scope = f" ({one_line(run.scope)})" if run.scope else ""
    sentence = f"Nothing was found that keeps GPU work from running{scope}"
    if lesser:
        sentence += f"; {count_of(lesser, 'check')} with a fault below {run.fail_on.value}"
    if unknown:
        sentence += f"; {count_of(unknown, 'check')} could not be judged, which was allowed"
    return f"{sentence}."


def _faulty(run: Run) -> str:
    if run.worst is not Severity.CRITICAL:
        if run.worst is Severity.MAJOR:
            return "Some GPU work cannot run here, or runs wrongly."
        return f"Faults were found; the worst is {run.worst.value if run.worst else 'unnamed'}."
    blocked = len(run.blocked_nodes)
    if not blocked:
        critical = sum(result.has_fault(at_least=Severity.CRITICAL) for result in run.results)
        return f"GPU work is broken here: {count_of(critical, 'critical requirement')} not met."
    if blocked >= run.nodes.gpu:
        return "GPU work cannot run here."
    also = any(finding.judgement.severity is Severity.CRITICAL for finding in run.unexplained)
    return f"GPU work cannot run on {'at least ' if also else ''}{blocked:,} of {run.nodes.gpu:,} GPU nodes."


def _unknown(run: Run) -> str:
    unknown = sum(result.count(Outcome.UNKNOWN) > 0 for result in run.results)
    asked = sum(result.is_judged or result.count(Outcome.UNKNOWN) > 0 for result in run.results)
    if any(result.passed for result in run.results):
        return f"It is not known whether GPU work runs here: {unknown:,} of {asked:,} checks could not be judged."
    if any(result.is_judged for result in run.results):
        return "It is not known whether GPU work runs here: no check passed."
    return "It is not known whether GPU work runs here: nothing could be judged."


def _erroneous(run: Run) -> str:
    broken = sum(result.count(Outcome.BROKEN) > 0 for result in run.results)
    if broken:
        return f"No verdict: {count_of(broken, 'check')} of gpucheck crashed."
    return "No verdict: gpucheck could not do its work."
