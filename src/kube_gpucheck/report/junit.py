"""Renders a run for a CI server: JUnit XML, valid against `reports/junit.xsd`.

Never a silent pass: a case without failure, error or skip means that every subject that was looked at
passed, or has a fault below `--fail-on` and its text under `system-out`.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar
from xml.etree import ElementTree as ET

from junit_xml import TestCase, TestSuite

from kube_gpucheck.model import CheckResult, Finding, Judgement, Layer, Outcome, Run, Subject, Verdict
from kube_gpucheck.report.text import LINE, LONG, capped, for_xml, one_line
from kube_gpucheck.report.wording import (
    OUTCOME_WORDS,
    count_of,
    last_line,
    names_phrase,
    subjects_phrase,
    verdict_sentence,
)

_FINDING: Final = 8_192
"""Characters of one finding's text: one of many must not use up the room of its case."""
_ATTRIBUTE: Final = 1_024
"""Characters of a message, which CI servers show in one line."""
_TIMESTAMP: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}")


Thing = TypeVar("Thing")


class _Parts(NamedTuple):
    """What a case says: message and text of each, `None` where it does not say it."""

    error: tuple[str, str] | None
    failure: tuple[str, str] | None
    skipped: tuple[str, str] | None
    output: str


def render(run: Run) -> bytes:
    """Return the report in UTF-8: a suite a layer, a case a check, in the run's order."""
    explained = {(one.check.id, one.judgement.subject): one for one in run.diagnosis.findings}
    suites: list[tuple[str, list[tuple[TestCase, float]]]] = []
    parts: list[_Parts] = []
    for layer in Layer:
        cases: list[tuple[TestCase, float]] = []
        for result in run.results:
            if result.info.layer is layer:
                parts.append(_parts(result, run, explained))
                name = one_line(f"{result.info.id} {result.info.title}", _ATTRIBUTE)
                cases.append((_case(name, f"gpucheck.{layer.value}", parts[-1]), result.duration_s))
        if cases:
            suites.append((f"gpucheck.{layer.value}", cases))
    if not _agrees(run.verdict, parts):
        case = _case("The run reached its verdict.", "gpucheck.run", _verdict_parts(run))
        suites.append(("gpucheck.run", [(case, 0.0)]))
    return _document(suites, run)


def _parts(result: CheckResult, run: Run, explained: Mapping[tuple[str, Subject], Finding]) -> _Parts:
    judgements = {outcome: [one for one in result.others if one.outcome is outcome] for outcome in Outcome}
    severe = [one for one in judgements[Outcome.FAULT] if one.severity.at_least(run.fail_on)]
    lesser = [one for one in judgements[Outcome.FAULT] if not one.severity.at_least(run.fail_on)]
    broken = judgements[Outcome.BROKEN]
    total = len(result.passed) + len(result.others)
    error = failure = skipped = None
    fault_text = functools.partial(_fault_text, explained=explained)
    output = [fault_text(one) for one in lesser]
    standing = result.outcome(fail_on=run.fail_on)
    if broken:
        message = f"{_share('crashed', broken, total)}: {last_line(broken[0].reason)}"
        error = (message, _together(broken, _reason_text))
        output = [fault_text(one) for one in severe] + output
    elif severe:
        message = f"{_share('fault', severe, total)}: {severe[0].seen}"
        failure = (message, _together(severe, fault_text))
    elif standing in {Outcome.UNKNOWN, Outcome.NOT_ASKED, Outcome.NOT_APPLICABLE}:
        skipping = judgements[standing]
        skipped = _skip(OUTCOME_WORDS[standing], skipping, total)
    for outcome in (Outcome.UNKNOWN, Outcome.NOT_ASKED):
        left = judgements[outcome]
        if left and (skipped is None or outcome is not standing):
            reasons = _together(left, _reason_text)
            output.append(f"{_share(OUTCOME_WORDS[outcome], left, total)}\n{reasons}")
    return _Parts(error, failure, skipped, _together(output, str))


def _skip(word: str, judgements: Sequence[Judgement], total: int) -> tuple[str, str]:
    if not judgements:
        return "no subject was judged", ""
    reasons = list(dict.fromkeys(_with_option(one) for one in judgements))
    message = f"{_share(word, judgements, total)}: {names_phrase(reasons, 2)}"
    return message, _together(judgements, _reason_text)


def _verdict_parts(run: Run) -> _Parts:
    """Return what the run says where no case of a check says it."""
    said = (verdict_sentence(run), f"exit status {run.exit_code}, verdict {run.verdict.value}")
    return _Parts(
        error=said if run.verdict is Verdict.ERROR else None,
        failure=said if run.verdict is Verdict.FAULTS else None,
        skipped=said if run.verdict is Verdict.UNKNOWN else None,
        output=_together(run.missing, lambda one: f"{one.evidence}: {one.kind.value}: {one.reason}"),
    )


def _agrees(verdict: Verdict, parts: Sequence[_Parts]) -> bool:
    """Tell whether the cases say what the exit status says."""
    match verdict:
        case Verdict.ERROR:
            return any(one.error for one in parts)
        case Verdict.FAULTS:
            return any(one.failure for one in parts)
        case Verdict.UNKNOWN:
            return any(one.skipped for one in parts)
        case Verdict.CONFORMS:
            return True


def _case(name: str, classname: str, parts: _Parts) -> TestCase:
    case = TestCase(name, classname=classname, stdout=for_xml(parts.output) or None)
    if parts.error:
        case.add_error_info(one_line(parts.error[0], _ATTRIBUTE), for_xml(parts.error[1]), "broken")
    if parts.failure:
        case.add_failure_info(one_line(parts.failure[0], _ATTRIBUTE), for_xml(parts.failure[1]), "fault")
    if parts.skipped:
        case.add_skipped_info(one_line(parts.skipped[0], _ATTRIBUTE), for_xml(parts.skipped[1]))
    return case


def _document(suites: Sequence[tuple[str, Sequence[tuple[TestCase, float]]]], run: Run) -> bytes:
    """Return the suites under a root of our own, with what is common to Ant's and Jenkins' schema.

    junit-xml's root and suites carry `disabled`, which both refuse; its root has counts and its skipped
    a type, which Ant's refuses; its times are floats as Python prints them ("1e-05").
    """
    root = ET.Element("testsuites")
    properties = _properties(run)
    for number, (name, cases) in enumerate(suites):
        suite = TestSuite(name, [case for case, _ in cases], hostname="localhost", id=str(number), package="gpucheck")
        suite.properties = properties
        suite.timestamp = _timestamp(run.info.started)
        element = suite.build_xml_doc()
        del element.attrib["disabled"]
        element.set("time", _seconds(duration for _, duration in cases))
        for case, (_, duration) in zip(element.iter("testcase"), cases, strict=True):
            case.set("time", _seconds([duration]))
            for skipped in case.iter("skipped"):
                del skipped.attrib["type"]
        # Ant's schema wants both in each suite, after its cases.
        ET.SubElement(element, "system-out")
        ET.SubElement(element, "system-err")
        root.append(element)
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _properties(run: Run) -> dict[str, str]:
    facts = {
        "gpucheck.version": run.tool_version,
        "run.id": run.info.id,
        "run.started": run.info.started,
        "run.finished": run.info.finished,
        "run.profile": run.info.profile,
        "run.source": run.info.source,
        "run.where": run.info.where,
        "run.simulated": "true" if run.info.simulated else "false",
        "verdict": run.verdict.value,
        "exit_code": str(run.exit_code),
        "fail_on": run.fail_on.value,
        "first_cause": run.first_cause or "",
        "nodes.gpu": str(run.nodes.gpu),
        "nodes.judged": str(run.nodes.judged),
        **{f"option.{name}": value for name, value in sorted(run.info.options.items())},
    }
    return {one_line(name): one_line(value) for name, value in facts.items()}


def _timestamp(time: str) -> str:
    """Return the time without its zone, as the format has it; the bundle's times are UTC."""
    found = _TIMESTAMP.match(time)
    return found[0] if found else "1970-01-01T00:00:00"


def _seconds(durations: Iterable[float]) -> str:
    return f"{sum(durations):.3f}"


def _share(word: str, judgements: Sequence[Judgement], total: int) -> str:
    """Return how many subjects of how many, and the first by name: "fault on 1 of 8: gpu-3"."""
    return f"{word} on {len(judgements):,} of {total:,}: {subjects_phrase([one.subject for one in judgements])}"


def _fault_text(judgement: Judgement, explained: Mapping[tuple[str, Subject], Finding]) -> str:
    finding = explained.get((judgement.check, judgement.subject))
    lines = {
        "seen": judgement.seen,
        "means": judgement.means,
        "do": judgement.remedy,
        "cause": (finding.cause or "") if finding else "",
        "consequence of": ", ".join(finding.consequence_of) if finding else "",
    }
    said = "".join(f"\n  {label}: {capped(text, _FINDING)}" for label, text in lines.items() if text)
    return f"{judgement.subject} · {judgement.severity.value}{said}"


def _reason_text(judgement: Judgement) -> str:
    return f"{judgement.subject}: {capped(_with_option(judgement), _FINDING)}"


def _with_option(judgement: Judgement) -> str:
    reason = capped(judgement.reason, LINE) or "no reason was given"
    return f"{reason} (add {judgement.option})" if judgement.option else reason


def _together(things: Sequence[Thing], text_of: Callable[[Thing], str]) -> str:
    """Return the texts one under the other; from the first on that does not fit into a case, they are counted."""
    kept: list[str] = []
    room = LONG - _ATTRIBUTE
    for place, thing in enumerate(things):
        text = text_of(thing)
        if len(text) > room:
            kept.append(f"and {count_of(len(things) - place, 'more subject')}; the JSON report has all")
            break
        kept.append(text)
        room -= len(text) + 1
    return "\n".join(kept)
