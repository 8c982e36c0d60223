"""Which subjects concern each other, over generated clusters."""

from collections.abc import Mapping
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bundle_builders
from kube_gpucheck.diagnose.relations import Relations
from kube_gpucheck.evidence import Cluster
from kube_gpucheck.evidence.bundle import memory_bundle
from kube_gpucheck.model import THE_CLUSTER, Subject, SubjectKind

NODES: Final = ("node-a", "node-b", "node-c")
ZONES: Final = ("x", "y")
PODS: Final = ("pod-1", "pod-2", "pod-3")
DAEMONSETS: Final = ("plugin", "gfd")


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    nodes = [
        {
            "metadata": {
                "name": name,
                "labels": {
                    "zone": draw(st.sampled_from(ZONES)),
                    **({"nvidia.com/gpu.present": "true"} if draw(st.booleans()) else {}),
                },
            },
            "spec": {},
            "status": {"conditions": [], "nodeInfo": {}},
        }
        for name in NODES
    ]
    pods = [_pod(draw, name) for name in PODS]
    daemonsets = [
        {
            "metadata": {"name": name, "namespace": "gpu", "uid": f"uid-{name}"},
            "spec": {"template": {"spec": {"containers": [{"name": "c"}]}}},
            "status": {
                "desiredNumberScheduled": 0,
                "currentNumberScheduled": 0,
                "numberReady": 0,
                "numberMisscheduled": 0,
            },
        }
        for name in DAEMONSETS
    ]
    files = bundle_builders.files()
    files["cluster/nodes.json"] = bundle_builders.listed(*nodes)
    files["cluster/pods.json"] = bundle_builders.listed(*pods)
    files["cluster/daemonsets.apps.json"] = bundle_builders.listed(*daemonsets)
    return Cluster(memory_bundle("generated", files))


def _pod(draw: st.DrawFn, name: str) -> Mapping[str, Any]:
    owner = draw(st.none() | st.sampled_from(DAEMONSETS))
    place = draw(st.none() | st.sampled_from(NODES))
    selector = draw(st.none() | st.sampled_from(ZONES))
    return {
        "metadata": {
            "name": name,
            "namespace": "gpu",
            "ownerReferences": []
            if owner is None
            else [{"kind": "DaemonSet", "name": owner, "uid": f"uid-{owner}", "controller": True}],
        },
        "spec": {
            "containers": [{"name": "c"}],
            **({"nodeName": place} if place else {}),
            **({"nodeSelector": {"zone": selector}} if selector else {}),
        },
        "status": {"phase": "Running" if place else "Pending"},
    }


def subjects_of(cluster: Cluster) -> tuple[Subject, ...]:
    nodes = getattr(cluster.nodes, "value", ())
    pods = getattr(cluster.readable_pods, "value", ())
    daemonsets = getattr(cluster.daemonsets, "value", ())
    gpus = [Subject(SubjectKind.GPU, "0000:01:00.0", node=name) for name in NODES]
    targets = [Subject(SubjectKind.TARGET, f"10.0.0.1:9400/{name}", node=name) for name in NODES]
    return (THE_CLUSTER, *(one.subject for one in (*nodes, *pods, *daemonsets)), *gpus, *targets)


QUICK: Final = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(clusters())
def test_it_is_symmetric_and_reflexive(cluster: Cluster) -> None:
    relations = Relations(cluster)
    subjects = subjects_of(cluster)
    for one in subjects:
        assert relations.related(one, one)
        for other in subjects:
            assert relations.related(one, other) == relations.related(other, one)


@QUICK
@given(clusters())
def test_the_cluster_concerns_everything(cluster: Cluster) -> None:
    relations = Relations(cluster)
    assert all(relations.related(THE_CLUSTER, one) for one in subjects_of(cluster))


@QUICK
@given(clusters())
def test_what_stands_on_a_node_concerns_that_node_and_no_other(cluster: Cluster) -> None:
    relations = Relations(cluster)
    subjects = subjects_of(cluster)
    nodes = [one for one in subjects if one.kind is SubjectKind.NODE]
    placed = [one for one in subjects if one.node is not None and one.kind is not SubjectKind.NODE]
    for one in placed:
        assert {node.name for node in nodes if relations.related(one, node)} == {one.node}


@QUICK
@given(clusters())
def test_two_nodes_two_gpus_and_two_pods_do_not_concern_each_other(cluster: Cluster) -> None:
    relations = Relations(cluster)
    subjects = subjects_of(cluster)
    for one in subjects:
        for other in subjects:
            if one.kind is other.kind and one != other:
                assert not relations.related(one, other)


@QUICK
@given(clusters())
def test_a_daemonset_concerns_the_gpu_nodes_and_its_own_pods(cluster: Cluster) -> None:
    relations = Relations(cluster)
    subjects = subjects_of(cluster)
    for daemonset in getattr(cluster.daemonsets, "value", ()):
        mine = {pod.subject for pod in getattr(daemonset.pods, "value", ())}
        near = {one for one in subjects if relations.related(daemonset.subject, one)}
        assert {one for one in near if one.kind is SubjectKind.POD} == mine
        assert {one.name for one in near if one.kind is SubjectKind.NODE} == relations.gpu_nodes


@QUICK
@given(clusters())
def test_a_pod_without_a_node_concerns_the_nodes_that_its_selector_allows(cluster: Cluster) -> None:
    relations = Relations(cluster)
    nodes = {node.subject: getattr(node.labels, "value", {}) for node in getattr(cluster.nodes, "value", ())}
    for pod in getattr(cluster.readable_pods, "value", ()):
        if pod.node_name is None:
            wanted = dict(pod.object.value.spec.node_selector or {})
            allowed = {node for node, labels in nodes.items() if wanted.items() <= labels.items()}
            assert {node for node in nodes if relations.related(pod.subject, node)} == allowed


def test_a_subject_that_is_nowhere_in_the_evidence_concerns_only_itself_and_the_cluster() -> None:
    relations = Relations(Cluster(memory_bundle("small", bundle_builders.files())))
    unknown = Subject(SubjectKind.POD, "ghost", namespace="gpu")
    assert relations.related(unknown, unknown)
    assert relations.related(unknown, THE_CLUSTER)
    assert not relations.related(unknown, Subject(SubjectKind.NODE, "gpu-0", node="gpu-0"))
    assert not relations.related(unknown, Subject(SubjectKind.DAEMONSET, "ghost", namespace="gpu"))
