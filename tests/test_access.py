"""Rights: the manifests allow what a run asks for and nothing else; what is refused comes out as the rules to add."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import rbac
import write_rbac
from kube_gpucheck import runner
from kube_gpucheck.evidence import Cluster
from kube_gpucheck.evidence.access import in_a_role, rules_to_read
from kube_gpucheck.evidence.bundle import open_bundle
from kube_gpucheck.model import Missing, Outcome, Seen, Severity, Subject, SubjectKind
from kube_gpucheck.simulate.faults import Fault, FaultKind
from suite import LIBRARY, all_checks, judge_one

DISCOVERY = re.compile(r"/version|/api|/apis|/api/[^/]+|/apis/[^/]+(/[^/]+)?")
"""What every authenticated user may get: Kubernetes' default ClusterRole `system:discovery`.

Kubernetes documentation, "Using RBAC Authorization", "API discovery roles".
"""
NAMES = ("troubleshoot", "pod")


@pytest.fixture(scope="module")
def derived(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[rbac.Rule]]:
    return rbac.derived(tmp_path_factory.mktemp("derived"))


def rights(rules: list[rbac.Rule]) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_allows_everything_that_a_run_asks_for(derived: Mapping[str, list[rbac.Rule]], name: str) -> None:
    assert rights(derived[name]) - rights(rbac.written(name)) == set()


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_allows_nothing_that_a_run_does_not_ask_for(
    derived: Mapping[str, list[rbac.Rule]], name: str
) -> None:
    assert rights(rbac.written(name)) - rights(derived[name]) == set()


def test_the_manifests_are_as_their_writer_writes_them(derived: Mapping[str, list[rbac.Rule]]) -> None:
    written = {name: (rbac.FOLDER / f"{name}.yaml").read_text(encoding="utf-8") for name in NAMES}
    assert written == write_rbac.texts(derived)
    assert {path.stem for path in rbac.FOLDER.iterdir()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_only_reads_and_never_secrets_or_a_nodes_proxy(name: str) -> None:
    allowed = rights(rbac.written(name))
    assert {verb for _, _, verb in allowed} == {"get", "list"}
    assert {resource for _, resource, _ in allowed}.isdisjoint(
        {"secrets", "nodes/proxy", "pods/proxy", "pods/exec", "*"}
    )
    assert all("*" not in group for group, _, _ in allowed)


def test_the_binding_names_the_role_and_the_account_of_its_manifest() -> None:
    objects = {one["kind"]: one for one in rbac.documents("troubleshoot")}
    binding = objects["ClusterRoleBinding"]
    account = objects["ServiceAccount"]["metadata"]
    assert binding["roleRef"]["name"] == objects["ClusterRole"]["metadata"]["name"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": account["name"], "namespace": objects["Namespace"]["metadata"]["name"]}
    ]
    assert all(
        one["metadata"]["labels"] == {"app.kubernetes.io/name": "gpucheck"}
        for name in NAMES
        for one in rbac.documents(name)
    )


def test_what_is_no_resource_is_open_to_every_user(tmp_path: Path) -> None:
    requests, _ = rbac.recorded(rbac.everything_served(), tmp_path)
    paths = {asking.path for asking in requests if not asking.verb}
    assert paths
    assert [path for path in paths if not DISCOVERY.fullmatch(path)] == []
    assert {asking.method for asking in requests} == {"GET"}


REFUSED = ("events", "daemonsets.apps", "deployments.apps", "pods/log")


def judged(folder: Path, *refused: str) -> Any:
    """Return what CLU-001 says where a server refuses these, and asks for all else as well."""
    faults = [Fault(FaultKind.FORBIDDEN, kind) for kind in refused]
    bundle = rbac.everything_served()
    rbac.recorded(bundle, folder, faults=faults)
    check = next(check for check in all_checks() if check.info.id == "CLU-001")
    return judge_one(check, open_bundle(folder / "bundle"))


def block(remedy: str) -> list[rbac.Rule]:
    """Return the rules that a remedy shows."""
    found = re.search(r"the rules (\[.*\]), then run", remedy)
    assert found is not None
    return list(yaml.safe_load(found[1]))


def test_what_is_refused_is_reported_once_as_the_rules_to_add(tmp_path: Path) -> None:
    result = judged(tmp_path, *REFUSED)
    (finding,) = result.others
    assert (finding.outcome, finding.severity) == (Outcome.FAULT, Severity.MINOR)
    assert {
        ("", "events", "list"),
        ("", "pods/log", "get"),
        ("apps", "daemonsets", "list"),
        ("apps", "deployments", "list"),
    } <= rights(block(finding.remedy))
    assert re.search(r"^\d+ of \d+ kinds are forbidden: .*; \d+ of \d+ logs are forbidden$", finding.seen)


def test_the_rules_to_add_are_those_of_the_manifest_that_are_missing() -> None:
    every = [f"{plural}.{group}".rstrip(".") for group, plural, _ in rights(rbac.written("troubleshoot"))]
    wanted = rules_to_read(kind for kind in every if kind != "nodes")
    written = {right for right in rights(rbac.written("troubleshoot")) if right[1] != "nodes"}
    assert rights(list(yaml.safe_load(in_a_role(wanted)))) == written


def test_rules_are_one_for_each_group_and_verb() -> None:
    rules = rules_to_read(["nodes", "pods", "pods/log", "daemonsets.apps", "resourceslices.resource.k8s.io"])
    assert [str(rule) for rule in rules] == [
        '{apiGroups: [""], resources: ["nodes", "pods"], verbs: ["list"]}',
        '{apiGroups: [""], resources: ["pods/log"], verbs: ["get"]}',
        '{apiGroups: ["apps"], resources: ["daemonsets"], verbs: ["list"]}',
        '{apiGroups: ["resource.k8s.io"], resources: ["resourceslices"], verbs: ["list"]}',
    ]


# --- one pod, with a tenant's rights ---------------------------------------------------------------

ONE = ("default", "cuda-vectoradd")
"""A pod that waits, in a cluster whose device plugin was removed: `recorded/plugin-removed-capacity-zero`."""


def seen_of(scenario: str, pod: tuple[str, str], folder: Path, *faults: Fault) -> Cluster:
    folder.mkdir()
    rbac.recorded(LIBRARY.build(scenario), folder, pod=pod, faults=faults)
    return Cluster(open_bundle(folder / "bundle"))


def judgements(cluster: Cluster) -> dict[tuple[str, Subject], str]:
    """Return what was said of each subject; what was passed, with the others."""
    said: dict[tuple[str, Subject], str] = {}
    for result in runner.judge(cluster):
        said |= {(result.info.id, subject): "pass" for subject in result.passed}
        said |= {(result.info.id, one.subject): one.outcome.value for one in result.others}
    return said


RIGHTS = {
    "a namespace": "",
    "a namespace and the nodes": r"|nodes\b|runtimeclasses\b",
    "a namespace, the nodes and the pods": r"|nodes\b|runtimeclasses\b|pods\b",
}
"""What may be read, and what more of the whole cluster that is, as the end of a pattern."""


@pytest.mark.parametrize("readable", RIGHTS)
@pytest.mark.parametrize(
    ("scenario", "pod"),
    [
        ("recorded/plugin-removed-capacity-zero", ONE),
        ("recorded/gpu-exhausted", ("default", "gpu-waiter")),
        ("recorded/time-slicing-4", ("default", "ts-4")),
        ("tutorial/08-workload", ("default", "gpu-waiter")),
    ],
)
def test_fewer_rights_make_a_judgement_unknown_and_never_another(
    tmp_path: Path, scenario: str, pod: tuple[str, str], readable: str
) -> None:
    every = judgements(seen_of(scenario, pod, tmp_path / "every"))
    few = judgements(seen_of(scenario, pod, tmp_path / "few", *rbac.nothing_but(pod[0], RIGHTS[readable])))
    unsure = {"unknown", "not-asked"}
    other = {
        f"{check} of {subject}": f"{every.get((check, subject))} became {outcome}"
        for (check, subject), outcome in few.items()
        if outcome not in unsure and every.get((check, subject)) != outcome
    }
    assert other == {}
    assert "pass" in few.values()


def test_what_a_tenant_reads_of_one_namespace_is_not_taken_for_the_cluster(tmp_path: Path) -> None:
    cluster = seen_of("recorded/plugin-removed-capacity-zero", ONE, tmp_path / "few", *rbac.nothing_but(ONE[0]))
    assert isinstance(cluster.pods, Missing)
    assert isinstance(cluster.daemonsets, Missing)
    assert isinstance(cluster.seen_pods, Seen)
    assert {pod.namespace for pod in cluster.seen_pods.value} == {ONE[0]}
    own = next(pod for pod in cluster.seen_pods.value if pod.name == ONE[1])
    assert isinstance(own.events, Seen)
    assert [event.reason for event in own.events.value] == ["FailedScheduling"]
    assert isinstance(cluster.events("Pod", "kube-system", "coredns"), Missing)
    assert isinstance(cluster.events("Node", "", "gpu-node-0"), Missing)


def test_a_tenant_hears_the_scheduler_where_the_nodes_may_not_be_read(tmp_path: Path) -> None:
    cluster = seen_of("recorded/plugin-removed-capacity-zero", ONE, tmp_path / "few", *rbac.nothing_but(ONE[0]))
    check = next(check for check in all_checks() if check.info.id == "PLG-008")
    subject = Subject(SubjectKind.POD, ONE[1], namespace=ONE[0])
    (said,) = [one for one in judge_one(check, cluster.bundle).others if one.subject == subject]
    assert said.outcome is Outcome.UNKNOWN
    assert said.reason.startswith("the nodes that the pod may run on (the scheduler says: 0/1 nodes are available: 1 ")
    assert "Insufficient nvidia.com/gpu" in said.reason
