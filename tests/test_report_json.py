import json
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from jsonschema import Draft202012Validator

from kube_gpucheck.model import (
    Candidate,
    GpuNodes,
    Layer,
    MissingEvidence,
    MissingKind,
    Outcome,
    Run,
    Severity,
    Subject,
    SubjectKind,
)
from kube_gpucheck.report.json import render
from run_builders import (
    cause,
    check,
    fault,
    node,
    other,
    passing,
    result,
    run_of,
    undesired_plugin,
)

SCHEMA: Final = json.loads(Path(__file__).parents[1].joinpath("reports", "report.schema.json").read_text("utf-8"))
CAPACITY: Final = check("PLG-005")


def read(run: Run) -> Any:
    return json.loads(render(run))


def partly_judged() -> Run:
    gpu = Subject(SubjectKind.GPU, "0000:17:00.0", node="gpu-3")
    return run_of(
        *passing("CLU", 2, Layer.CLUSTER),
        result(
            CAPACITY,
            fault(CAPACITY, gpu, severity=Severity.MINOR),
            other(CAPACITY, Outcome.UNKNOWN, node("gpu-5"), reason="host: EACCES"),
            passed=[node("gpu-0")],
        ),
        candidates=(Candidate("gpu-fell-off-bus", "A GPU fell off the bus.", (gpu,), ("the kernel log",)),),
        nodes=GpuNodes(3, 2, (("gpu-5", "forbidden"),)),
        missing=(MissingEvidence("host", MissingKind.FORBIDDEN, "EACCES", source="/dev/nvidiactl", node="gpu-5"),),
    )


def crashed() -> Run:
    return run_of(result(CAPACITY, other(CAPACITY, Outcome.BROKEN, reason="Traceback\nKeyError: 'x'")))


def nothing_asked() -> Run:
    return run_of(result(CAPACITY, other(CAPACITY, Outcome.NOT_ASKED, option="--active")))


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("build", [undesired_plugin, partly_judged, crashed, nothing_asked, run_of])
def test_every_report_is_what_the_schema_says(build: Any) -> None:
    errors = [error.message for error in Draft202012Validator(SCHEMA).iter_errors(read(build()))]

    assert errors == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("verdict", "healthy"), ("format", 2), ("exit_code", 0), ("fail_on", "warning"), ("checks", None)],
)
def test_the_schema_refuses_what_the_contract_does_not_know(field: str, value: Any) -> None:
    report = read(undesired_plugin())

    report[field] = value

    assert not Draft202012Validator(SCHEMA).is_valid(report)


def test_the_report_says_what_the_run_says() -> None:
    report = read(undesired_plugin())

    assert {key: report[key] for key in ("format", "verdict", "exit_code", "fail_on", "first_cause", "nodes")} == {
        "format": 1,
        "verdict": "faults",
        "exit_code": 1,
        "fail_on": "major",
        "first_cause": "nfd-label-missing",
        "nodes": {"gpu": 1, "judged": 1, "missing": []},
    }
    assert report["run"]["simulated"] is True


def test_a_finding_has_its_subject_and_its_place() -> None:
    finding = read(undesired_plugin())["findings"][2]

    assert finding == {
        "check": "PLG-001",
        "title": "The device plugin is wanted on every GPU node.",
        "layer": "deviceplugin",
        "severity": "critical",
        "outcome": "fault",
        "subject": {
            "kind": "daemonset",
            "name": "nvdp-nvidia-device-plugin",
            "namespace": "nvidia-device-plugin",
        },
        "seen": "wants 0 pods; 1 node has a GPU",
        "means": "the device plugin started before the driver listed every GPU",
        "remedy": "delete the node's device-plugin pod; once it is Ready, run 'gpucheck run -k PLG-005'",
        "reason": "",
        "cause": "nfd-label-missing",
        "consequence_of": ["DSC-001"],
        "partly": False,
    }


def test_a_check_counts_its_subjects_by_outcome_and_gives_a_reason() -> None:
    counted = read(partly_judged())["checks"][2]

    assert counted == {
        "id": "PLG-005",
        "title": "Capacity is what the hardware and the plugin's effective configuration imply.",
        "layer": "deviceplugin",
        "severity": "critical",
        "pass": 1,
        "fault": 1,
        "unknown": 1,
        "not-asked": 0,
        "not-applicable": 0,
        "broken": 0,
        "reason": "host: EACCES",
    }


def test_missing_evidence_names_its_node() -> None:
    assert read(partly_judged())["missing"] == [
        {"evidence": "host", "node": "gpu-5", "kind": "forbidden", "reason": "EACCES", "source": "/dev/nvidiactl"}
    ]


def test_two_renderings_of_a_run_are_equal() -> None:
    assert render(undesired_plugin()) == render(undesired_plugin())


def test_runs_over_the_same_evidence_differ_under_run_alone() -> None:
    slow = result(CAPACITY, fault(CAPACITY), duration_s=0.5)
    fast = result(CAPACITY, fault(CAPACITY), duration_s=0.1)

    reports = [read(run_of(each)) for each in (slow, fast)]

    assert reports[0].pop("run") != reports[1].pop("run")
    assert reports[0] == reports[1]


def test_text_that_utf8_cannot_hold_is_spelled_out() -> None:
    hostile = f"\x1b[31m{chr(0xDC80)}{chr(0xFFFE)}]]><script>"
    run = run_of(result(CAPACITY, fault(CAPACITY, node(chr(0xD800)), seen=hostile)), causes=(cause(seen=(hostile,)),))

    report = msgspec.json.decode(render(run))  # stricter than the standard library, which lets surrogates pass

    assert report["findings"][0]["seen"] == f"\x1b[31m\\udc80{chr(0xFFFE)}]]><script>"
    assert report["findings"][0]["subject"]["name"] == r"\ud800"


def test_a_log_line_of_five_megabytes_is_cut() -> None:
    report = render(run_of(result(CAPACITY, fault(CAPACITY, seen="x" * 5_000_000))))

    assert len(report) < 100_000
    assert b"characters cut" in report
