"""Each bundle and scenario gives exactly what its expectation says; together they show every check at its worst."""

from typing import Any

import msgspec
import pytest

import expectations
import suite
from kube_gpucheck import runner
from kube_gpucheck.evidence import Cluster
from kube_gpucheck.model import CheckResult

NOT_REPEATED = {"telemetry-not-installed", "stale-extended-resource"}
"""Minor causes that labels leave out, as `labels.yaml` says."""


@pytest.mark.parametrize("name", expectations.names())
def test_what_comes_out_is_what_is_expected(name: str) -> None:
    expected = expectations.read(name)
    also = expected.pop("also")
    found = expectations.outcome_of(name)
    assert found == expected
    assert isinstance(also, list)
    assert expectations.cured_already(name) == []


@pytest.mark.parametrize("name", sorted(expectations.labels()))
def test_what_is_expected_of_a_recording_or_stage_is_its_label(name: str) -> None:
    label, expected = expectations.labels()[name], expectations.read(name)
    assert expected["first_cause"] == label["cause"]
    assert expected["also"] == label.get("also", [])
    assert expected["exit"] == label.get("exit", 0 if label["cause"] is None else 1)


@pytest.mark.parametrize("name", sorted(expectations.labels()))
def test_the_lesser_causes_of_a_recording_or_stage_are_its_labels(name: str) -> None:
    label, expected = expectations.labels()[name], expectations.read(name)
    minor = set(label.get("minor", []))
    assert minor <= set(expected["minor"])
    assert set(expected["minor"]) - minor - set(label.get("also", [])) <= NOT_REPEATED


def test_every_recording_and_stage_has_a_label() -> None:
    wanted = {name for name in expectations.names() if name.startswith(("recorded/", "tutorial/"))}
    assert set(expectations.labels()) == wanted


def test_every_expectation_is_of_a_bundle_or_scenario() -> None:
    assert set(expectations.written()) <= set(expectations.names())


def test_the_complete_state_has_no_finding() -> None:
    expected = expectations.read("complete")
    assert (expected["findings"], expected["minor"], expected["first_cause"]) == ([], [], None)


def judged(outcome: str) -> set[str]:
    """Return the checks that have this outcome in at least one expectation."""
    every = (expectations.read(name)["findings"] for name in expectations.written())
    return {check for findings in every for check, said, _, _ in findings if said == outcome}


@pytest.mark.parametrize("outcome", ["fault", "unknown"])
def test_every_check_has_this_outcome_somewhere(outcome: str) -> None:
    shown = judged(outcome)
    assert [check.info.id for check in suite.all_checks() if check.info.id not in shown] == []


@pytest.mark.parametrize("name", ["recorded/no-runtimeclass", "tutorial/07-discovery"])
def test_checks_say_the_same_with_pytest_around_them_and_without(name: str) -> None:
    def said(results: tuple[CheckResult, ...]) -> list[CheckResult]:
        return [msgspec.structs.replace(result, duration_s=0.0) for result in results]

    bundle = suite.LIBRARY.build(name)
    assert said(suite.judge_all(Cluster(bundle))) == said(runner.judge(Cluster(bundle)))


def test_no_check_breaks_anywhere() -> None:
    assert judged("broken") == set()


SHOWN = [name for name in expectations.written() if expectations.check_of(name) is not None]


@pytest.mark.parametrize("name", SHOWN)
def test_a_scenario_of_a_check_shows_what_its_name_says(name: str) -> None:
    check = expectations.check_of(name)
    assert check is not None
    rows: list[list[Any]] = expectations.read(name)["findings"]
    outcomes = {said for one, said, _, _ in rows if one == check}
    shown = name.removeprefix(f"checks/{check}-").partition("-")[0]
    assert shown in {"fault", "unknown", "pass"}
    assert (shown in outcomes) if shown != "pass" else outcomes == set()
