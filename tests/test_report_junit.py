from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from lxml import etree

from kube_gpucheck.model import Finding, Layer, Outcome, Run, Severity, Verdict
from kube_gpucheck.report.junit import render
from run_builders import (
    check,
    fault,
    findings_of,
    node,
    other,
    passing,
    result,
    run_of,
    undesired_plugin,
)

SCHEMA: Final = etree.XMLSchema(etree.parse(Path(__file__).parents[1] / "reports" / "junit.xsd"))
CAPACITY: Final = check("PLG-005")
HEALTHY: Final = passing("CLU", 2, Layer.CLUSTER)
MINOR: Final = result(CAPACITY, fault(CAPACITY, severity=Severity.MINOR))
UNKNOWN: Final = result(CAPACITY, other(CAPACITY, Outcome.UNKNOWN, node("gpu-5")), passed=[node("gpu-0")])
NOT_ASKED: Final = result(CAPACITY, other(CAPACITY, Outcome.NOT_ASKED, reason="no workload", option="--active"))
CRASHED: Final = result(
    CAPACITY,
    other(CAPACITY, Outcome.BROKEN, node("gpu-1"), reason="Traceback (most recent call last):\nKeyError: 'x'"),
    fault(CAPACITY),
)


def read(run: Run) -> Any:
    """Return the root element; refuse what the schema refuses."""
    document = etree.fromstring(render(run))
    SCHEMA.assertValid(document)
    return document


def only_case(run: Run) -> Any:
    (case,) = read(run).findall("testsuite[@name='gpucheck.deviceplugin']/testcase")
    return case


def told(case: Any) -> list[str]:
    return [child.tag for child in case]


def test_a_suite_is_a_layer_and_a_case_is_a_check() -> None:
    suites = read(undesired_plugin()).findall("testsuite")

    assert {suite.get("name"): suite.get("tests") for suite in suites} == {
        "gpucheck.cluster": "7",
        "gpucheck.driver": "19",
        "gpucheck.runtime": "11",
        "gpucheck.runtimeclass": "4",
        "gpucheck.discovery": "6",
        "gpucheck.deviceplugin": "3",
        "gpucheck.workload": "1",
        "gpucheck.telemetry": "1",
        "gpucheck.operator": "1",
    }


def test_a_case_is_named_by_identifier_and_requirement() -> None:
    case = only_case(run_of(result(CAPACITY, passed=[node("a")], duration_s=1.5)))

    assert dict(case.attrib) == {
        "classname": "gpucheck.deviceplugin",
        "name": "PLG-005 Capacity is what the hardware and the plugin's effective configuration imply.",
        "time": "1.500",
    }


def test_the_facts_of_the_run_are_properties_of_every_suite() -> None:
    suites = read(undesired_plugin()).findall("testsuite")

    facts = [{each.get("name"): each.get("value") for each in suite.iter("property")} for suite in suites]

    assert all(each == facts[0] for each in facts)
    assert facts[0]["verdict"] == "faults"
    assert facts[0]["run.simulated"] == "true"
    assert facts[0]["first_cause"] == "nfd-label-missing"
    assert facts[0]["option.fail-on"] == "major"


def test_a_fault_is_a_failure_with_its_subjects_and_the_denominator() -> None:
    faults = [fault(CAPACITY, node(f"gpu-{number}")) for number in range(5)]

    (failure,) = only_case(run_of(result(CAPACITY, *faults, passed=[node("gpu-7")])))

    assert failure.tag == "failure"
    assert failure.get("message") == (
        "fault on 5 of 6: gpu-0, gpu-1, gpu-2 and 2 more: capacity is 7, expected 8: 8 GPU x 1"
    )
    assert all(f"gpu-{number} · critical" in failure.text for number in range(5))
    assert "do: delete the node's device-plugin pod" in failure.text


def test_a_failure_says_what_explains_it() -> None:
    run = run_of(
        result(CAPACITY, fault(CAPACITY)),
        findings=(Finding(CAPACITY, fault(CAPACITY), cause="nfd-label-missing", consequence_of=("DSC-001",)),),
    )

    (failure,) = only_case(run)

    assert "cause: nfd-label-missing" in failure.text
    assert "consequence of: DSC-001" in failure.text


def test_a_fault_below_fail_on_is_output_and_no_failure() -> None:
    (output,) = only_case(run_of(*HEALTHY, MINOR))

    assert output.tag == "system-out"
    assert "dxlab-nb-00 · minor\n  seen: capacity is 7" in output.text


def test_a_check_that_passed_here_and_is_unknown_there_is_skipped_by_name() -> None:
    (skipped,) = only_case(run_of(*HEALTHY, UNKNOWN))

    assert skipped.tag == "skipped"
    assert skipped.get("message").startswith("unknown on 1 of 2: gpu-5: pods is forbidden")


def test_a_check_that_was_not_asked_is_skipped_with_the_option_that_asks() -> None:
    (skipped,) = only_case(run_of(*HEALTHY, NOT_ASKED))

    assert skipped.get("message") == "not asked on 1 of 1: dxlab-nb-00: no workload (add --active)"


def test_a_check_that_does_not_apply_is_skipped_with_the_fact() -> None:
    nothing = result(CAPACITY, other(CAPACITY, Outcome.NOT_APPLICABLE, reason="only DRA serves this node"))

    (skipped,) = only_case(run_of(*HEALTHY, nothing))

    assert skipped.get("message").endswith("only DRA serves this node")


def test_a_check_without_any_subject_is_skipped() -> None:
    (skipped,) = only_case(run_of(*HEALTHY, result(CAPACITY)))

    assert (skipped.tag, skipped.get("message")) == ("skipped", "no subject was judged")


def test_a_failure_does_not_hide_the_unknown_and_the_lesser_fault_beside_it() -> None:
    mixed = result(
        CAPACITY,
        fault(CAPACITY),
        fault(CAPACITY, node("gpu-2"), severity=Severity.MINOR),
        other(CAPACITY, Outcome.UNKNOWN, node("gpu-3")),
        other(CAPACITY, Outcome.NOT_ASKED, node("gpu-4"), option="--probe"),
    )

    case = only_case(run_of(mixed))

    assert told(case) == ["failure", "system-out"]
    assert "gpu-2 · minor" in case[1].text
    assert "unknown on 1 of 4: gpu-3" in case[1].text
    assert "not asked on 1 of 4: gpu-4" in case[1].text


def test_a_crash_is_an_error_and_its_faults_stay_to_be_read() -> None:
    case = only_case(run_of(*HEALTHY, CRASHED))

    assert told(case) == ["error", "system-out"]
    assert case[0].get("message") == "crashed on 1 of 2: gpu-1: KeyError: 'x'"
    assert "dxlab-nb-00 · critical" in case[1].text


def kinds(run: Run) -> dict[str, int]:
    root = read(run)
    cases = root.findall("testsuite/testcase")
    tags = [child.tag for case in cases for child in case if child.tag != "system-out"]
    counted = {tag: tags.count(tag) for tag in ("failure", "error", "skipped")}
    assert counted == {
        "failure": sum(int(suite.get("failures")) for suite in root),
        "error": sum(int(suite.get("errors")) for suite in root),
        "skipped": sum(int(suite.get("skipped")) for suite in root),
    }
    return counted | {"plain": len(cases) - len(tags)}


@pytest.mark.parametrize(
    ("run", "exit_code", "expected"),
    [
        pytest.param(run_of(*HEALTHY), 0, {"plain": 2}, id="all pass"),
        pytest.param(run_of(*HEALTHY, MINOR), 0, {"plain": 3}, id="a minor fault beside passes"),
        pytest.param(run_of(*HEALTHY, MINOR, fail_on=Severity.MINOR), 1, {"plain": 2, "failure": 1}, id="it counts"),
        pytest.param(run_of(MINOR), 4, {"plain": 1, "skipped": 1}, id="a minor fault alone: nothing passed"),
        pytest.param(run_of(*HEALTHY, UNKNOWN), 4, {"plain": 2, "skipped": 1}, id="an unknown"),
        pytest.param(
            run_of(*HEALTHY, UNKNOWN, allow_unknown=True), 0, {"plain": 2, "skipped": 1}, id="an unknown, allowed"
        ),
        pytest.param(run_of(NOT_ASKED), 4, {"skipped": 1}, id="nothing judged"),
        pytest.param(run_of(NOT_ASKED, allow_unknown=True), 4, {"skipped": 1}, id="nothing judged, unknown allowed"),
        pytest.param(run_of(), 4, {"skipped": 1}, id="no check at all"),
        pytest.param(run_of(*HEALTHY, CRASHED), 3, {"plain": 2, "error": 1}, id="a crash and a fault"),
    ],
)
def test_the_cases_say_what_the_exit_status_says(run: Run, exit_code: int, expected: dict[str, int]) -> None:
    assert run.exit_code == exit_code
    assert {kind: count for kind, count in kinds(run).items() if count} == expected


def test_an_error_that_no_check_shows_has_a_case_of_its_own() -> None:
    run = msgspec.structs.replace(run_of(*HEALTHY), verdict=Verdict.ERROR, exit_code=3)

    assert kinds(run) == {"plain": 2, "failure": 0, "error": 1, "skipped": 0}


HOSTILE: Final = [
    pytest.param("\x1b[31mred\x1b[0m\x00\x08", r"red\x00\x08", id="control characters"),
    pytest.param(chr(0xDC80) + chr(0xD800), r"\udc80\ud800", id="lone surrogates"),
    pytest.param(chr(0xFFFE) + chr(0xFFFF), r"\ufffe\uffff", id="code points that are no characters"),
    pytest.param("a]]>b<![CDATA[c", "a]]>b<![CDATA[c", id="the end of a CDATA section"),
    pytest.param("<script>alert(1)</script>&amp;\"'", "<script>alert(1)</script>&amp;\"'", id="HTML"),
    pytest.param(chr(0x202E) + "abc", r"\u202eabc", id="the direction of writing"),
]


@pytest.mark.parametrize(("hostile", "shown"), HOSTILE)
def test_hostile_text_is_read_back_as_what_can_be_seen(hostile: str, shown: str) -> None:
    run = run_of(
        result(CAPACITY, fault(CAPACITY, node(hostile), seen=hostile)),
        result(check("PLG-006"), other(check("PLG-006"), Outcome.UNKNOWN, node(hostile), reason=hostile)),
        result(check("PLG-007"), fault(CAPACITY, node(hostile), seen=hostile, severity=Severity.MINOR)),
        result(check("PLG-008"), other(CAPACITY, Outcome.BROKEN, reason=hostile)),
        where=hostile,
    )

    failure, skipped, output, error = [child for case in read(run).iter("testcase") for child in case]

    assert [failure.tag, skipped.tag, output.tag, error.tag] == ["failure", "skipped", "system-out", "error"]
    assert all(shown in child.text for child in (failure, skipped, output, error))
    assert all(shown in child.get("message") for child in (failure, skipped, error))


def test_a_log_line_of_five_megabytes_is_cut_to_head_and_tail() -> None:
    line = "HEAD" + "x" * 5_000_000 + "TAIL"
    infos = [check(f"PLG-{number:03}") for number in range(3)]
    run = run_of(
        result(infos[0], fault(infos[0], seen=line)),
        result(infos[1], other(infos[1], Outcome.UNKNOWN, reason=line)),
        result(infos[2], other(infos[2], Outcome.BROKEN, reason=line)),
    )

    document = render(run)

    assert len(document) < 200_000
    read(run)
    assert b"seen: HEADxxx" in document
    assert b"characters cut" in document
    assert b"xxxTAIL" in document


def test_faults_of_four_thousand_nodes_leave_a_case_of_bounded_size() -> None:
    many = [fault(CAPACITY, node(f"gpu-{number:04}"), seen="x" * 2_000) for number in range(4_000)]

    (failure,) = only_case(run_of(result(CAPACITY, *many)))

    assert failure.get("message").startswith("fault on 4,000 of 4,000: gpu-0000, gpu-0001, gpu-0002 and 3,997 more")
    assert len(failure.text) <= 65_536
    assert "more subjects; the JSON report has all" in failure.text


def test_findings_are_made_for_every_fault_and_unknown() -> None:
    assert [one.judgement.outcome for one in findings_of([UNKNOWN, MINOR])] == [Outcome.UNKNOWN, Outcome.FAULT]


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda root: root.set("disabled", "0"), id="disabled on testsuites"),
        pytest.param(lambda root: root.set("skipped", "0"), id="skipped on testsuites"),
        pytest.param(lambda root: root[0].set("disabled", "0"), id="disabled on a testsuite"),
        pytest.param(lambda root: root[0].set("time", "1e-05"), id="a time with an exponent"),
        pytest.param(lambda root: root[0].set("timestamp", "2023-01-27T08:10:00Z"), id="a time with a zone"),
        pytest.param(lambda root: etree.SubElement(root.find(".//testcase"), "properties"), id="properties of a case"),
        pytest.param(lambda root: root.find(".//testcase").set("file", "x.py"), id="file of a case"),
        pytest.param(lambda root: root[0].append(root[0][0]), id="properties last"),
        pytest.param(lambda root: root[0].insert(1, root[0][-1]), id="output before the cases"),
    ],
)
def test_the_schema_refuses_what_ci_servers_refuse(spoil: Any) -> None:
    root = etree.fromstring(render(run_of(*HEALTHY)))
    assert SCHEMA.validate(root)

    spoil(root)

    assert not SCHEMA.validate(root)
