"""A check is judged for every subject, and nothing that could not be looked at becomes a pass."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundle_builders
import suite
from kube_gpucheck import assets, runner
from kube_gpucheck.evidence import Cluster, DaemonSet, Gpu, Node, Pod
from kube_gpucheck.evidence.bundle import memory_bundle
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import (
    CheckResult,
    Layer,
    Missing,
    MissingKind,
    Outcome,
    Reading,
    Seen,
    Severity,
    Subject,
    SubjectKind,
)


def judged(function: Callable[[Any], None], files: dict[str, bytes], **declared: Any) -> CheckResult:
    """Declare a function as a check and judge it."""
    check("TST-001", layer=Layer.CLUSTER, severity=Severity.MAJOR, **declared)(function)
    return suite.judge_one(function.__gpucheck__, memory_bundle("b", files))  # type: ignore[attr-defined]  # set above


def outcomes(result: CheckResult) -> dict[str, Outcome]:
    return {subject.name: Outcome.PASS for subject in result.passed} | {
        one.subject.name: one.outcome for one in result.others
    }


def test_every_gpu_node_is_a_subject_and_no_other_node() -> None:
    def mine(node: Node) -> None:
        """Hold."""

    plain = bundle_builders.node("cpu-0")
    del plain["metadata"]["labels"]
    files = {**bundle_builders.files(), "cluster/nodes.json": bundle_builders.listed(bundle_builders.node(), plain)}
    assert outcomes(judged(mine, files)) == {"gpu-0": Outcome.PASS}


def test_subjects_that_cannot_be_listed_are_one_unknown() -> None:
    def mine(pod: Pod) -> None:
        """Hold."""

    files = bundle_builders.files()
    del files["cluster/pods.json"]
    assert outcomes(judged(mine, files)) == {"cluster": Outcome.UNKNOWN}


def test_subjects_that_nobody_asked_for_are_not_asked() -> None:
    def mine(gpu: Gpu) -> None:
        """Hold."""

    assert outcomes(judged(mine, bundle_builders.files())) == {"gpu-0": Outcome.NOT_ASKED}


def test_no_subject_is_not_applicable_and_no_pass() -> None:
    def mine(daemonset: DaemonSet) -> None:
        """Hold."""

    assert outcomes(judged(mine, bundle_builders.files())) == {"cluster": Outcome.NOT_APPLICABLE}


def test_a_check_may_say_what_none_means() -> None:
    def mine(daemonset: DaemonSet) -> None:
        """Hold."""

    def none(cluster: Cluster) -> None:
        fault(seen="none", means="nothing", remedy="install one")

    assert outcomes(judged(mine, bundle_builders.files(), none_means=none)) == {"cluster": Outcome.FAULT}


def test_a_malformed_object_is_unknown_beside_the_others() -> None:
    def mine(pod: Pod) -> None:
        """Hold."""

    broken = bundle_builders.pod("broken")
    del broken["spec"]["containers"]
    files = {**bundle_builders.files(), "cluster/pods.json": bundle_builders.listed(bundle_builders.pod(), broken)}
    assert outcomes(judged(mine, files)) == {"web": Outcome.PASS, "broken": Outcome.UNKNOWN}


def test_a_subject_that_cannot_be_told_apart_is_unknown() -> None:
    def mine(pod: Pod) -> None:
        """Hold."""

    def among(pod: Pod) -> Reading[bool]:
        return Missing(MissingKind.FORBIDDEN, f"{pod.name} may not be seen", "test")

    assert outcomes(judged(mine, bundle_builders.files(), among=among)) == {"web": Outcome.UNKNOWN}


def test_a_crash_is_broken_with_its_traceback() -> None:
    def mine(node: Node) -> None:
        """Hold."""
        raise LookupError(node.name)

    (judgement,) = judged(mine, bundle_builders.files()).others
    assert (judgement.outcome, "LookupError: gpu-0" in judgement.reason) == (Outcome.BROKEN, True)


def test_a_fault_may_lower_its_severity_and_never_raise_it() -> None:
    def lower(node: Node) -> None:
        """Hold."""
        fault(seen="a", means="b", remedy="c", severity=Severity.INFO)

    def higher(node: Node) -> None:
        """Hold."""
        fault(seen="a", means="b", remedy="c", severity=Severity.CRITICAL)

    found = [judged(one, bundle_builders.files()).others[0].severity for one in (lower, higher)]
    assert found == [Severity.INFO, Severity.MAJOR]


def test_known_opens_what_was_seen_and_ends_the_check_on_what_was_not() -> None:
    def mine(node: Node) -> None:
        """Hold."""
        assert known(Seen(7), "seven") == 7
        known(Missing(MissingKind.NOT_ASKED, "nobody looked", "test", "--probe"), "eight")

    (judgement,) = judged(mine, bundle_builders.files()).others
    assert (judgement.outcome, judgement.reason, judgement.option) == (
        Outcome.NOT_ASKED,
        "eight: nobody looked",
        "--probe",
    )


def test_not_applicable_gives_its_reason() -> None:
    def mine(node: Node) -> None:
        """Hold."""
        not_applicable("it is a toaster")

    assert judged(mine, bundle_builders.files()).others[0].reason == "it is a toaster"


def test_the_title_is_the_docstrings_first_line_and_the_rest_is_about() -> None:
    def mine(node: Node) -> None:
        """The node holds.

        It does not judge the rest.
        """

    info = judged(mine, bundle_builders.files()).info
    assert (info.title, info.about, info.subject) == (
        "The node holds",
        "It does not judge the rest.",
        SubjectKind.NODE,
    )


def test_only_the_named_nodes_are_judged() -> None:
    nodes = bundle_builders.listed(bundle_builders.node("gpu-0"), bundle_builders.node("gpu-1"))
    cluster = Cluster(memory_bundle("b", {**bundle_builders.files(), "cluster/nodes.json": nodes}))
    results = runner.judge(cluster, nodes=("gpu-1",))
    named = {one.subject.node for result in results for one in result.others} | {
        subject.node for result in results for subject in result.passed
    }
    assert named <= {"gpu-1", None}
    assert "gpu-1" in named


def test_plain_pytest_judges_a_bundle_too(tmp_path: Path) -> None:
    bundle_builders.write(tmp_path, bundle_builders.files())
    where = assets.folder("conformance")
    line = [sys.executable, "-m", "pytest", str(where), f"--bundle={tmp_path}", f"--config-file={where}/pytest.ini"]
    line += ["-q", "-k", "CLU-003"]
    rooted = [*line, f"--rootdir={where.parent}"]
    done = subprocess.run(rooted, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    without = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert f"give --rootdir={where.parent}" in without.stderr


def test_a_subject_is_shown_as_it_is_typed() -> None:
    shown = [
        str(Subject(SubjectKind.NODE, "n", node="n")),
        str(Subject(SubjectKind.GPU, "0000:02:00.0", node="n")),
        str(Subject(SubjectKind.POD, "p", namespace="ns", node="n")),
        str(Subject(SubjectKind.CLUSTER, "cluster")),
    ]
    assert shown == ["n", "n/0000:02:00.0", "ns/p", "the cluster"]


def test_judgements_come_in_the_order_of_subjects_though_nodes_are_judged_one_by_one() -> None:
    places = {"pod-0": "gpu-1", "pod-1": "gpu-0", "pod-2": "gpu-1", "pod-3": "gpu-0"}
    pods = [bundle_builders.pod(name) for name in reversed(places)]
    for pod in pods:
        pod["spec"]["nodeName"] = places[pod["metadata"]["name"]]
    nodes = bundle_builders.listed(bundle_builders.node("gpu-1"), bundle_builders.node("gpu-0"))
    files = {
        **bundle_builders.files(),
        "cluster/pods.json": bundle_builders.listed(*pods),
        "cluster/nodes.json": nodes,
    }

    def mine(pod: Pod) -> None:
        """Pods pass, but for two."""
        if pod.name in {"pod-0", "pod-3"}:
            fault(seen=pod.name, means="a", remedy="b")

    result = judged(mine, files)
    assert ([one.name for one in result.passed], [one.seen for one in result.others]) == (
        ["pod-1", "pod-2"],
        ["pod-0", "pod-3"],
    )


def test_all_checks_of_a_node_are_called_before_the_next_node() -> None:
    called: list[tuple[str, str]] = []

    def one(node: Node) -> None:
        """The first."""
        called.append(("one", node.name))

    def two(node: Node) -> None:
        """The second."""
        called.append(("two", node.name))

    nodes = bundle_builders.listed(bundle_builders.node("gpu-0"), bundle_builders.node("gpu-1"))
    cluster = Cluster(memory_bundle("b", {**bundle_builders.files(), "cluster/nodes.json": nodes}))
    checks = [
        check(f"ABC-00{number}", layer=Layer.DRIVER, severity=Severity.MINOR)(function).__gpucheck__  # type: ignore[attr-defined]  # the plugin looks for it
        for number, function in enumerate((one, two))
    ]
    suite.judge_these(checks, cluster)
    assert called == [("one", "gpu-0"), ("two", "gpu-0"), ("one", "gpu-1"), ("two", "gpu-1")]


def test_what_was_worked_out_of_a_node_is_let_go_when_enough_others_were() -> None:
    nodes = [bundle_builders.node(f"gpu-{number:03}") for number in range(100)]
    files = {**bundle_builders.files(), "cluster/nodes.json": bundle_builders.listed(*nodes)}
    views = Cluster(memory_bundle("b", files)).nodes
    assert isinstance(views, Seen)
    first = views.value[0].runtime
    assert views.value[0].runtime is first
    assert all(view.runtime for view in views.value)
    assert views.value[0].runtime is not first
