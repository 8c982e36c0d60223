"""Who holds GPUs by the API, beside the kubelet's record and the plugin's registration."""

import datetime

import pytest

import suite
from bundle_builders import files, listed, node, pod
from kube_gpucheck.evidence import Cluster, Node
from kube_gpucheck.evidence.bundle import memory_bundle
from kube_gpucheck.evidence.pluginlog import parse_log
from kube_gpucheck.model import Missing, MissingKind, Seen

UTC = datetime.timezone.utc


def node_of(name: str) -> Node:
    found = Cluster(suite.LIBRARY.build(name)).node_of("gpu-node-0")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("line", "when"),
    [
        (
            "I1124 00:14:08.751216       1 server.go:149] Registered device plugin for 'a' with Kubelet",
            "I1124 00:14:08",
        ),
        ("2023/01/27 08:20:31 Registered device plugin with Kubelet", "2023/01/27 08:20:31"),
        ("Registered device plugin for 'nvidia.com/gpu' with Kubelet", None),
    ],
)
def test_a_registration_has_the_stamp_of_its_line(line: str, when: str | None) -> None:
    log = parse_log(line, "log")
    assert isinstance(log, Seen)
    assert log.value.registered_when == when


def test_a_plugin_registers_anew_when_the_kubelet_restarts() -> None:
    moment = node_of("recorded/kubelet-restarted").holdings.registered_at
    assert moment == Seen(datetime.datetime(2026, 11, 24, 0, 14, 8, tzinfo=UTC))


def test_a_pod_without_a_device_in_the_record_is_empty_handed() -> None:
    empty = node_of("checks/CLU-010-fault").holdings.empty_handed
    assert isinstance(empty, Seen)
    assert [(one.pod, one.resource, one.count) for one in empty.value] == [("default/train", "nvidia.com/gpu", 1)]


@pytest.mark.parametrize(
    "name", ["checks/CLU-010-pass", "checks/CLU-010-pass-kubelet", "healthy/all-gpus-in-use", "recorded/gpu-exhausted"]
)
def test_a_pod_is_not_empty_handed_where_it_is_older_or_the_record_names_it(name: str) -> None:
    assert node_of(name).holdings.empty_handed == Seen(())


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("recorded/healthy", datetime.datetime(2026, 11, 24, 0, 12, 59, tzinfo=UTC)),
        ("checks/CLU-010-fault", datetime.datetime(2026, 11, 24, 0, 12, 7, tzinfo=UTC)),
        ("tutorial/08-workload", datetime.datetime(2023, 1, 27, 7, 46, 4, tzinfo=UTC)),
    ],
)
def test_the_kubelets_start_is_told_by_its_socket_or_by_events(name: str, moment: datetime.datetime) -> None:
    found = next(iter(Cluster(suite.LIBRARY.build(name)).bundle.hosts))
    one = Cluster(suite.LIBRARY.build(name)).node_of(found)
    assert one is not None
    assert one.holdings.kubelet_started_at == Seen(moment)


def test_without_the_record_nothing_is_told_of_an_early_pod() -> None:
    empty = node_of("checks/CLU-010-unknown").holdings.empty_handed
    assert isinstance(empty, Missing)
    assert empty.kind is not MissingKind.NOT_ASKED


@pytest.mark.parametrize("name", ["recorded/healthy", "healthy/finished-jobs", "recorded/xid-application-faults"])
def test_the_record_of_a_pod_that_ended_last_is_not_leaked(name: str) -> None:
    assert node_of(name).holdings.leaked == Seen(())


@pytest.mark.parametrize("name", ["mechanisms/kubelet-keeps-stale-device-allocation", "checks/PLG-010-fault-record"])
def test_the_record_is_leaked_where_it_stood_in_another_pods_way(name: str) -> None:
    leaked = node_of(name).holdings.leaked
    assert isinstance(leaked, Seen)
    assert len(leaked.value) == 1


@pytest.mark.parametrize(
    ("asked", "offered", "held"),
    [
        ({"nvidia.com/gpu": "2"}, {"nvidia.com/gpu": "1"}, [("nvidia.com/gpu", 2, 1)]),
        ({"nvidia.com/gpu": "1"}, {"nvidia.com/gpu": "1"}, []),
        ({"nvidia.com/mig-1g.5gb": "1"}, {}, [("nvidia.com/mig-1g.5gb", 1, 0)]),
        ({"nvidia.com/gpu": "1", "nvidia.com/gpumem": "3000"}, {"nvidia.com/gpu": "1"}, []),
    ],
)
def test_more_is_held_than_there_is_of_what_kubelets_count(
    asked: dict[str, str], offered: dict[str, str], held: list[tuple[str, int, int]]
) -> None:
    holder = pod("train")
    holder["spec"]["containers"][0]["resources"] = {"limits": asked}
    content = files()
    content["cluster/nodes.json"] = listed(node(capacity=offered, allocatable=offered))
    content["cluster/pods.json"] = listed(holder)
    one = Cluster(memory_bundle("test", content)).node_of("gpu-0")
    assert one is not None
    excess = one.holdings.excess
    assert isinstance(excess, Seen)
    assert [(each.resource, each.held, each.allocatable) for each in excess.value] == held
