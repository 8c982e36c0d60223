"""Renders a run for programs: the JSON report, whose contract is `reports/report.schema.json`.

Leaves text as it was seen, but for a cap and for lone surrogates; a program that shows it makes it safe.
"""
# The name of the standard module is the format's; imports are absolute, so neither hides the other.

from collections.abc import Mapping, Sequence

import msgspec

from kube_gpucheck.model import (
    JSON_FORMAT,
    Candidate,
    CheckResult,
    DiagnosedCause,
    Finding,
    MissingEvidence,
    Outcome,
    Run,
    Subject,
)
from kube_gpucheck.report.text import for_json

Value = None | bool | int | float | str | Sequence["Value"] | Mapping[str, "Value"]
"""What JSON can say."""


def render(run: Run) -> bytes:
    """Return the report in UTF-8, indented, one line feed at its end.

    The same run gives the same bytes: order is the run's, and options go by name. All that differs
    between two runs over the same evidence stands under `run`, durations included.
    """
    document: Value = {
        "format": JSON_FORMAT,
        "tool": {"name": "gpucheck", "version": run.tool_version},
        "run": {
            "id": run.info.id,
            "started": run.info.started,
            "finished": run.info.finished,
            "profile": run.info.profile,
            "source": run.info.source,
            "where": run.info.where,
            "simulated": run.info.simulated,
            "options": dict(sorted(run.info.options.items())),
            "durations_s": {result.info.id: round(result.duration_s, 6) for result in run.results},
        },
        "verdict": run.verdict.value,
        "exit_code": run.exit_code,
        "fail_on": run.fail_on.value,
        "first_cause": run.first_cause,
        "nodes": {
            "gpu": run.nodes.gpu,
            "judged": run.nodes.judged,
            "missing": [{"node": node, "reason": reason} for node, reason in run.nodes.missing],
        },
        "causes": [_cause(one) for one in run.diagnosis.causes],
        "candidates": [_candidate(one) for one in run.diagnosis.candidates],
        "findings": [_finding(one) for one in run.diagnosis.findings],
        "checks": [_check(one) for one in run.results],
        "not_installed": {layer.value: fact for layer, fact in run.layers_not_installed.items()},
        "missing": [_missing(one) for one in run.missing],
    }
    return msgspec.json.format(msgspec.json.encode(_safe(document)), indent=2) + b"\n"


def _cause(cause: DiagnosedCause) -> Value:
    return {
        "id": cause.id,
        "title": cause.title,
        "layer": cause.layer.value,
        "severity": cause.severity.value,
        "subjects": [_subject(one) for one in cause.subjects],
        "gpu_nodes": cause.gpu_nodes,
        "explains": cause.explains,
        "seen": cause.seen,
        "for": cause.signs_for,
        "against": cause.signs_against,
        "remedy": cause.remedy,
        "then": cause.then,
        "interrupts": cause.interrupts,
        "references": cause.references,
    }


def _candidate(candidate: Candidate) -> Value:
    return {
        "id": candidate.id,
        "title": candidate.title,
        "subjects": [_subject(one) for one in candidate.subjects],
        "unknown": candidate.unknown,
    }


def _finding(finding: Finding) -> Value:
    judgement = finding.judgement
    return {
        "check": finding.check.id,
        "title": finding.check.title,
        "layer": finding.check.layer.value,
        "severity": judgement.severity.value,
        "outcome": judgement.outcome.value,
        "subject": _subject(judgement.subject),
        "seen": judgement.seen,
        "means": judgement.means,
        "remedy": judgement.remedy,
        "reason": judgement.reason,
        "cause": finding.cause,
        "consequence_of": finding.consequence_of,
        "partly": finding.partly,
    }


def _check(result: CheckResult) -> Value:
    reason = _reason(result)
    return {
        "id": result.info.id,
        "title": result.info.title,
        "layer": result.info.layer.value,
        "severity": result.info.severity.value,
        **{outcome.value: result.count(outcome) for outcome in Outcome},
        **({"reason": reason} if reason else {}),
    }


def _reason(result: CheckResult) -> str:
    """Return the first reason why a subject was not judged, those first that weigh most."""
    for outcome in (Outcome.BROKEN, Outcome.UNKNOWN, Outcome.NOT_ASKED, Outcome.NOT_APPLICABLE):
        for judgement in result.others:
            if judgement.outcome is outcome and judgement.reason:
                return judgement.reason
    return ""


def _missing(missing: MissingEvidence) -> Value:
    return {
        "evidence": missing.evidence,
        **({"node": missing.node} if missing.node is not None else {}),
        "kind": missing.kind.value,
        "reason": missing.reason,
        "source": missing.source,
    }


def _subject(subject: Subject) -> Value:
    return {
        "kind": subject.kind.value,
        "name": subject.name,
        **({"namespace": subject.namespace} if subject.namespace is not None else {}),
        **({"node": subject.node} if subject.node is not None else {}),
    }


def _safe(value: Value) -> Value:
    """Return the value with every text in it fit for UTF-8."""
    if isinstance(value, str):
        return for_json(value)
    if isinstance(value, Mapping):
        return {for_json(key): _safe(one) for key, one in value.items()}
    if isinstance(value, Sequence):
        return [_safe(one) for one in value]
    return value
