"""What the evaluator says of each node, against what real schedulers printed: recordings, and public threads."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest

import suite
from bundle_builders import MANIFEST, listed
from kube_gpucheck.evidence import Cluster, Node, Pod
from kube_gpucheck.evidence.allocation import Fit, placement, wait_of, words_of_scheduler
from kube_gpucheck.evidence.bundle import memory_bundle
from kube_gpucheck.evidence.readings import need
from kube_gpucheck.evidence.scheduling import reject

REASON: Final = re.compile(r"(?:^ |, )(\d+) (.*?)(?=, \d+ |\.(?: |$)|$)")
KINDS: Final = (
    (
        "taint",
        re.compile(
            r"node\(s\) had (?:untolerated taint|taints? .*that the pod didn't tolerate)|PodToleratesNodeTaints"
        ),
    ),
    ("unschedulable", re.compile(r"node\(s\) were unschedulable")),
    ("label", re.compile(r"node\(s\) didn't match (?:Pod's node affinity|node selector)|MatchNodeSelector")),
    ("resource", re.compile(r"Insufficient nvidia\.com/")),
    ("claim", re.compile(r"cannot allocate all claims")),
)
NOT_EVALUATED: Final = re.compile(r"Insufficient (?:cpu|memory|pods)|topology|volume|affinity rules|free ports")


def printed(message: str) -> Counter[str]:
    """Return how many nodes the scheduler turned down for what; empty where it names what is not evaluated."""
    head = message.partition("preemption:")[0]
    found: Counter[str] = Counter()
    for number, words in REASON.findall(head.partition("nodes are available:")[2]):
        if NOT_EVALUATED.search(words):
            return Counter()
        found.update({kind: int(number) for kind, form in KINDS if form.search(words)})
    return found


def evaluated(pod: Pod, nodes: tuple[Node, ...]) -> Counter[str]:
    """Return the same by the evaluator, in the order of the scheduler's filters: rules first, then resources."""
    found: Counter[str] = Counter()
    spec = need(pod.object).spec
    for node in nodes:
        why = reject(spec, node, tolerations=spec.tolerations or ())
        if why is not None:
            found["label" if why.is_by_label else why.rule] += 1
        elif need(placement(pod, node)).fit is not Fit.FREE:
            found["resource"] += 1
    return found


def waiting() -> Iterator[tuple[str, Pod]]:
    """Yield the pods of all recordings that a real scheduler turned down for their GPUs or their nodes."""
    for name in suite.LIBRARY.bundles():
        if not name.startswith("recorded/"):
            continue
        cluster = Cluster(suite.LIBRARY.build(name))
        pods = cluster.pods.value if hasattr(cluster.pods, "value") else ()
        for pod in pods:
            if pod.node_name is None and need(pod.gpu_request) and words_of_scheduler(need(pod.object)):
                yield name, pod


def test_recordings_hold_such_pods() -> None:
    assert len({name for name, _ in waiting()}) > 3


def test_each_node_is_turned_down_for_what_the_real_scheduler_named() -> None:
    different = {}
    compared = 0
    for name, pod in waiting():
        said, ours = printed(words_of_scheduler(need(pod.object))), evaluated(pod, need(pod.cluster.offers.nodes))
        compared += bool(said)
        if said and said != ours:
            different[f"{name} {pod.name}"] = (said, ours)

    assert different == {}
    assert compared > 3


def node(name: str, *, gpus: int = 0, allocatable: int | None = None, **more: Any) -> dict[str, Any]:
    """Return a Node that offers GPUs."""
    left = gpus if allocatable is None else allocatable
    return {
        "metadata": {"name": name, "labels": more.get("labels", {})},
        "spec": {"taints": more.get("taints", []), "unschedulable": more.get("unschedulable", False)},
        "status": {
            "conditions": [],
            "nodeInfo": {},
            "capacity": {"nvidia.com/gpu": str(gpus)} if gpus else {},
            "allocatable": {"nvidia.com/gpu": str(left)} if gpus else {},
        },
    }


def pod(*, gpus: tuple[int, ...] = (1,), bound: str | None = None, name: str = "me", **spec: Any) -> dict[str, Any]:
    """Return a pod whose containers ask for GPUs."""
    containers = [
        {"name": f"c{place}", "resources": {"limits": {"nvidia.com/gpu": str(count)}}}
        for place, count in enumerate(gpus)
    ]
    made = {"containers": containers, **({"nodeName": bound} if bound else {}), **spec}
    phase = "Running" if bound else "Pending"
    return {"metadata": {"name": name, "namespace": "default"}, "spec": made, "status": {"phase": phase}}


def judged(nodes: list[dict[str, Any]], *pods: dict[str, Any]) -> tuple[Pod, Cluster]:
    """Return the pod 'me' of a cluster of these objects."""
    files = {
        "cluster/nodes.json": listed(*nodes),
        "cluster/pods.json": listed(*pods),
        "cluster/daemonsets.apps.json": listed(),
        "cluster/events.json": listed(),
    }
    asked = {"api": ["nodes", "pods", "daemonsets.apps", "events"]}
    cluster = Cluster(memory_bundle("t", {"bundle.json": msgspec.json.encode({**MANIFEST, "asked": asked}), **files}))
    return next(one for one in need(cluster.pods) if one.name == "me"), cluster


TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("message", "nodes", "pods"),
    [
        pytest.param(  # NVIDIA/k8s-device-plugin#71: two containers with a GPU each, where there is one
            "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
            [node("a", gpus=1)],
            [pod(gpus=(1, 1))],
            id="two-containers-with-a-gpu-each",
        ),
        pytest.param(  # NVIDIA/k8s-device-plugin#421
            "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: }. preemption: 0/1 nodes are available: 1 "
            "Preemption is not helpful for scheduling..",
            [node("a", gpus=1, taints=[{"key": "gpu", "effect": "NoSchedule"}])],
            [pod()],
            id="a-taint-of-ones-own",
        ),
        pytest.param(
            "0/5 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, 1 "
            "node(s) were unschedulable, 3 Insufficient nvidia.com/gpu. preemption: 0/5 nodes are available: 5 "
            "Preemption is not helpful for scheduling.",
            [
                node("a", taints=[{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]),
                node("b", gpus=1, unschedulable=True),
                node("c"),
                node("d", gpus=8),
                node("e", gpus=8, allocatable=0),
            ],
            [pod(), pod(gpus=(8,), bound="d", name="holder")],
            id="each-node-for-a-reason-of-its-own",
        ),
        pytest.param(
            "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated "
            "taint {nvidia.com/gpu: present}. preemption: 0/2 nodes are available: 2 Preemption is not helpful",
            [node("a", gpus=1), node("b", gpus=1, labels={"zone": "b"}, taints=[TAINT])],
            [pod(nodeSelector={"zone": "b"})],
            id="a-selector-and-a-taint",
        ),
    ],
)
def test_what_a_scheduler_printed_is_what_we_find(
    message: str, nodes: list[dict[str, Any]], pods: list[dict[str, Any]]
) -> None:
    me, cluster = judged(nodes, *pods)

    assert printed(message) == evaluated(me, need(cluster.offers.nodes))


def test_every_node_has_one_place_and_a_reason_in_words() -> None:
    nodes = [node("a", gpus=1, taints=[TAINT]), node("b"), node("c", gpus=2), node("d", gpus=1, unschedulable=True)]
    me, _ = judged(nodes, pod(gpus=(2,)), pod(gpus=(1,), bound="c", name="holder"))

    places = need(wait_of(me)).placements

    assert [(one.node, one.fit, one.reason) for one in places] == [
        ("a", Fit.TOO_SMALL, "a has 1 nvidia.com/gpu"),
        ("b", Fit.NOT_OFFERED, "b has no nvidia.com/gpu"),
        ("c", Fit.IN_USE, "c has 1 of 2 nvidia.com/gpu free"),
        ("d", Fit.TOO_SMALL, "d has 1 nvidia.com/gpu"),
    ]
    assert places[2].holders == ("default/holder (1)",)
