"""A collection from a server that misbehaves: what was not read is missing and said; nothing passes falsely."""

import pytest

import fault_outcomes
from fault_outcomes import CASES, PAGE, UNSTEADY, Outcome, healthy, outcome_of, row_of, table_of
from kube_gpucheck.model import CheckResult, MissingKind, Subject
from kube_gpucheck.model import Outcome as Said

HEALED = {fault for fault in CASES if "*" in fault} | {"slow=0.5:pods", "410:events", "huge=20:nodes"}
"""Faults that patience heals."""
ENDING = {"403:nodes", "403", "401", "reset", fault_outcomes.WRONG_CA}
"""Faults that leave nothing to judge."""


@pytest.fixture(scope="module")
def whole() -> Outcome:
    return outcome_of("")


def passes(results: tuple[CheckResult, ...]) -> set[tuple[str, Subject]]:
    return {(one.info.id, subject) for one in results for subject in one.passed}


def test_without_a_fault_nothing_is_missing_and_nothing_found(whole: Outcome) -> None:
    assert (whole.exit, whole.verdict, whole.missing, whole.waited_s) == (0, "conforms", (), ())
    assert len(passes(whole.results)) > 50


@pytest.mark.parametrize("fault", CASES)
def test_a_fault_costs_what_the_page_says_and_no_check_passes_falsely(fault: str, whole: Outcome) -> None:
    outcome = outcome_of(fault)

    assert row_of(fault, outcome) in table_of(PAGE.read_text(encoding="utf-8"))
    assert passes(outcome.results) <= passes(whole.results)
    assert not [one for one in outcome.results if one.count(Said.BROKEN)]
    assert (outcome.exit == 0) is (fault in HEALED)
    assert (outcome.exit == 3) is (fault in ENDING)
    if outcome.exit == 0:
        assert passes(outcome.results) == passes(whole.results)
    elif outcome.exit != 3:
        assert outcome.missing
        assert all(one.reason and "\n" not in one.reason for one in outcome.missing)
        assert all(one.kind is not MissingKind.NOT_ASKED for one in outcome.missing)


def test_the_page_has_a_line_for_each_fault_and_no_other() -> None:
    lines = table_of(PAGE.read_text(encoding="utf-8"))

    assert [line.split("|")[1].strip(" `") for line in lines] == list(CASES)


@pytest.mark.parametrize(
    ("fault", "waits"), [("429=2:nodes*2", (2.0, 2.0)), ("503=1:daemonsets.apps*2", (1.0, 1.0)), ("500:pods*2", ())]
)
def test_it_is_waited_as_long_as_the_server_asks(fault: str, waits: tuple[float, ...]) -> None:
    assert outcome_of(fault).waited_s == waits


def test_what_is_missing_is_said_in_the_servers_words() -> None:
    lost = {one.evidence: one.reason for one in outcome_of("403:events").missing}

    assert lost == {
        "api/events": 'events is forbidden: User "simulated" cannot list resource "events" in API group "" '
        "at the cluster scope"
    }


@pytest.mark.parametrize("fault", sorted(UNSTEADY))
def test_what_came_before_a_fault_is_kept(fault: str) -> None:
    lost = {one.evidence for one in outcome_of(fault).missing}

    assert "api/nodes" not in lost
    assert {"api/leases.coordination.k8s.io", "api/configmaps"} <= lost


def test_the_healthy_cluster_has_several_pages_of_events() -> None:
    content = healthy().store.read("cluster/events.json") or b""

    assert content.count(b'"Pulled"') > 1000
