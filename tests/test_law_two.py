"""Law 2: a missing fact is a fact. No check passes on what it could not look at."""

from collections import defaultdict

import pytest
import yaml

import suite
from kube_gpucheck.evidence import Bundle, Cluster
from kube_gpucheck.judging import Check
from kube_gpucheck.model import Outcome, Subject

WRONG = {Outcome.UNKNOWN, Outcome.FAULT}


WALKED_AS = {"healthy/nvswitch-eight-gpus": "healthy/nvswitch-two-gpus"}
"""Bundles that hold more of what another one holds, and take much longer: the other is walked."""


def healthy() -> list[str]:
    """Return the bundles and scenarios that are expected to hold no fault at major or above."""
    names: list[str] = []
    for path in sorted((suite.FIXTURES / "expected").rglob("*.yaml")):
        name = path.relative_to(suite.FIXTURES / "expected").with_suffix("").as_posix()
        expected = yaml.safe_load(path.read_text())
        if "exit" in expected and expected["exit"] == 0 and not name.startswith("checks/"):
            names.append(name)
    assert set(WALKED_AS) | set(WALKED_AS.values()) <= set(names)
    return [name for name in names if name not in WALKED_AS]


def concerns(path: str, subject: Subject) -> bool:
    """Tell whether a path can bear on a subject: other nodes' hosts are read to enumerate their own subjects."""
    return not path.startswith("nodes/") or subject.node in {None, path.split("/")[1]}


def is_noticed(check: Check, bundle: Bundle, gone: str) -> bool:
    """Tell whether the check as a whole says so: what tells a node from a GPU node is read for all nodes at once."""
    return any(one.outcome in WRONG for one in suite.judge_one(check, suite.without(bundle, gone)).others)


def passes(bundle: Bundle) -> dict[str, list[tuple[Check, Subject]]]:
    """Return each document, log and host read of a bundle with the passes that looked at it, each judged alone."""
    found: dict[str, list[tuple[Check, Subject]]] = defaultdict(list)
    for check in suite.all_checks():
        for subject in suite.judge_one(check, suite.fresh(bundle)).passed:
            traced = suite.fresh(bundle)
            traced.trace = set()
            assert subject in suite.judge_one(check, traced, subject).passed
            for path in traced.trace:
                if concerns(path, subject):
                    found[path].append((check, subject))
    return {path: found[path] for path in sorted(found) if suite.is_there(bundle, path)}


@pytest.mark.parametrize("name", healthy())
def test_whatever_a_passing_check_read_it_cannot_pass_without(name: str) -> None:
    """A pass does not stand without any one document, log or host read that it looked at when it was judged alone."""
    bundle = suite.LIBRARY.build(name)
    survived: list[str] = []
    for gone, readers in passes(bundle).items():
        results = suite.judge_subjects(readers, Cluster(suite.without(bundle, gone)))
        still = {(one.info.id, subject) for one in results for subject in one.passed}
        survived.extend(
            f"{check.info.id} passes for {subject} without {gone}"
            for check, subject in readers
            if (check.info.id, subject) in still and not is_noticed(check, bundle, gone)
        )
    assert survived == []


def test_there_are_healthy_bundles_to_walk() -> None:
    assert {"recorded/healthy", "recorded/bare-host", "tutorial/07-discovery", "complete"} <= set(healthy())


@pytest.mark.parametrize("name", healthy())
def test_a_check_that_reads_nothing_cannot_pass(name: str) -> None:
    bundle = suite.LIBRARY.build(name)
    blind: list[str] = []
    for check in suite.all_checks():
        traced = suite.fresh(bundle)
        traced.trace = set()
        if suite.judge_one(check, traced).passed and not traced.trace:
            blind.append(check.info.id)
    assert blind == []
