"""Which logs and ConfigMaps are worth their reading: the stack's, GPU pods', troubled ones; a sample where many."""

import itertools
from typing import Any

import msgspec
import pytest

from kube_gpucheck.collect.survey import FEW_PODS, SAMPLE, Survey
from kube_gpucheck.evidence.items import CommonItem, OtherItem

PLUGIN = "nvcr.io/nvidia/k8s-device-plugin:v0.17.0"
HEALTHY: dict[str, Any] = {"name": "c", "ready": True, "restartCount": 0, "state": {"running": {}}}
WAITING: dict[str, Any] = {"name": "c", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 0}


def pod(
    name: str = "p",
    *,
    image: str = "nginx",
    statuses: Any = (HEALTHY,),
    phase: str = "Running",
    owner: str = "",
    spec: dict[str, Any] | None = None,
    resources: dict[str, Any] | None = None,
    message: str = "",
) -> dict[str, Any]:
    owners = (
        {"ownerReferences": [{"kind": "DaemonSet", "name": "d", "uid": owner, "controller": True}]} if owner else {}
    )
    container = {"name": "c", "image": image, "resources": resources or {}}
    return {
        "metadata": {"name": name, "namespace": "a", **owners},
        "spec": {"containers": [container], **(spec or {})},
        "status": {"phase": phase, "message": message, "containerStatuses": list(statuses)},
    }


def survey(*pods: Any, runtime_classes: tuple[Any, ...] = (), named: tuple[str, str] | None = None) -> Survey:
    found = Survey()
    found.pod = named
    for one in runtime_classes:
        found.see("runtimeclasses.node.k8s.io", OtherItem(msgspec.Raw(msgspec.json.encode(one))))
    for one in pods:
        found.see("pods", msgspec.json.decode(msgspec.json.encode(one), type=CommonItem))
    return found


RUNTIME_CLASS = {"metadata": {"name": "gpu"}, "handler": "nvidia-cdi"}


@pytest.mark.parametrize(
    "one",
    [
        pod(image=PLUGIN),
        pod(resources={"limits": {"nvidia.com/gpu": "1"}}),
        pod(resources={"requests": {"nvidia.com/mig-1g.5gb": "1"}}),
        pod(spec={"runtimeClassName": "nvidia"}),
        pod(spec={"runtimeClassName": "gpu"}),
        pod(phase="Failed", statuses=[], message="nothing")
        | {"spec": {"containers": [{"name": "c", "image": PLUGIN}]}},
    ],
)
def test_the_stacks_and_gpu_pods_are_seen(one: dict[str, Any]) -> None:
    found = survey(one, runtime_classes=(RUNTIME_CLASS,))

    assert found.logs() == (("a/p/c",) if one["status"]["containerStatuses"] else ())
    assert found.namespaces == ({"a"} if PLUGIN in str(one) else set())


@pytest.mark.parametrize(
    "one",
    [
        pod(),
        pod(phase="Pending", statuses=[WAITING]),
        pod(phase="Failed", message="OOMKilled"),
        pod(image="rocm/k8s-device-plugin"),
    ],
)
def test_a_pod_that_has_nothing_to_do_with_gpus_is_none_of_ours(one: dict[str, Any]) -> None:
    assert survey(one).logs() == ()


@pytest.mark.parametrize("state", ["state", "lastState"])
@pytest.mark.parametrize("words", ["failed to inject CDI devices", "could not select device driver nvidia"])
def test_a_pod_that_failed_and_names_nvidia_or_cdi_is_seen(state: str, words: str) -> None:
    status = {**HEALTHY, "ready": False, "state": {}, state: {"terminated": {"exitCode": 1, "message": words}}}

    assert "a/p/c" in survey(pod(statuses=[status])).logs()
    assert survey(pod(message=words)).logs() == ()


def test_the_run_before_is_read_where_there_was_one() -> None:
    restarted = {**HEALTHY, "restartCount": 3}
    ended = {**HEALTHY, "lastState": {"terminated": {"exitCode": 0}}}

    assert survey(pod(image=PLUGIN, statuses=[restarted])).logs() == ("a/p/c", "a/p/c/previous")
    assert survey(pod(image=PLUGIN, statuses=[ended])).logs() == ("a/p/c", "a/p/c/previous")


def test_a_pod_that_was_named_is_read_whatever_it_is() -> None:
    assert survey(pod("x"), pod("y"), named=("a", "x")).logs() == ("a/x/c",)


def test_few_pods_are_all_read() -> None:
    pods = [pod(f"p{number}", image=PLUGIN, owner="u1") for number in range(FEW_PODS)]

    assert len(survey(*pods).logs()) == FEW_PODS


def test_of_many_healthy_pods_a_sample_is_read_and_of_the_troubled_all() -> None:
    healthy = [pod(f"p{number:04}", image=PLUGIN, owner="u1") for number in range(1000)]
    troubled = [pod(f"t{number:04}", image=PLUGIN, owner="u1", statuses=[WAITING]) for number in range(50)]
    first, second = survey(*healthy, *troubled).logs(), survey(*reversed(troubled), *reversed(healthy)).logs()

    assert first == second
    assert sum("/t" in name for name in first) == 50
    sample = [int(name[3:7]) for name in first if "/p" in name]
    assert len(sample) == SAMPLE
    assert {b - a for a, b in itertools.pairwise(sample)} == {1000 // SAMPLE}


def test_the_most_troubled_pods_are_bounded() -> None:
    pods = [pod(f"t{number:05}", image=PLUGIN, owner="u", statuses=[WAITING]) for number in range(5000)]

    assert len(survey(*pods).logs()) == 600


def test_a_workload_of_the_stack_names_its_namespace() -> None:
    found = Survey()
    template = {"spec": {"containers": [{"name": "c", "image": PLUGIN}]}}
    for namespace, spec in (("a", {"template": template}), ("b", {"template": {"spec": {"containers": []}}})):
        item: dict[str, Any] = {"metadata": {"name": "d", "namespace": namespace}, "spec": spec}
        found.see("daemonsets.apps", msgspec.json.decode(msgspec.json.encode(item), type=CommonItem))

    assert found.namespaces == {"a"}


@pytest.mark.parametrize(
    "odd",
    [
        {"metadata": {}},
        {"metadata": {"name": "p", "namespace": "a"}, "spec": 5},
        {"metadata": {"name": 5, "namespace": "a"}, "spec": {"containers": [{"name": "c", "image": PLUGIN}]}},
        {"metadata": {"name": "p", "namespace": "a", "ownerReferences": {}}, "spec": {}},
        {"metadata": {"name": "p", "namespace": "a"}, "spec": {"containers": [{}]}},
        {**pod(image=PLUGIN), "status": {"containerStatuses": [{"name": 5}]}},
    ],
)
def test_a_malformed_pod_is_passed_by(odd: dict[str, Any]) -> None:
    assert survey(odd, pod(image=PLUGIN)).logs() == ("a/p/c",)


def test_a_name_that_leads_elsewhere_is_not_asked_for() -> None:
    evil = pod("../../nodes", image=PLUGIN)
    odd = pod("p", image=PLUGIN, statuses=[{**HEALTHY, "name": "../c"}])

    assert survey(evil, odd).logs() == ()


@pytest.mark.parametrize(
    ("labels", "capacity", "allocatable", "odd"),
    [
        ({}, {"nvidia.com/gpu": "8"}, {"nvidia.com/gpu": "8"}, False),
        ({}, {"nvidia.com/gpu": "8"}, {"nvidia.com/gpu": "7"}, True),
        ({}, {"cpu": "8"}, {"cpu": "7"}, False),
        ({"feature.node.kubernetes.io/pci-0302_10de.present": "true"}, {"cpu": "8"}, {"cpu": "8"}, True),
        ({"nvidia.com/gpu.present": "true"}, {"nvidia.com/gpu": "1"}, {"nvidia.com/gpu": "1"}, False),
    ],
)
def test_logs_of_a_node_that_offers_less_than_it_has_are_read_in_any_case(
    labels: dict[str, str], capacity: dict[str, str], allocatable: dict[str, str], *, odd: bool
) -> None:
    many = [pod(f"p{number:04}", image=PLUGIN, owner="u1", spec={"nodeName": "other"}) for number in range(1000)]
    found = survey(*many, pod("p0001x", image=PLUGIN, owner="u1", spec={"nodeName": "odd"}))
    node = {"metadata": {"name": "odd", "labels": labels}, "status": {"capacity": capacity, "allocatable": allocatable}}
    found.see("nodes", msgspec.json.decode(msgspec.json.encode(node), type=CommonItem))

    assert ("a/p0001x/c" in found.logs()) is odd
