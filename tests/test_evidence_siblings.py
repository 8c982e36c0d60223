"""What makes nodes siblings and what most of them have; what each layer of one node counts."""

import json
from collections.abc import Mapping

import pytest

import suite
from bundle_builders import MANIFEST, files, listed, node
from kube_gpucheck.evidence import Cluster, Node
from kube_gpucheck.evidence.bundle import memory_bundle
from kube_gpucheck.evidence.counts import Count, counts
from kube_gpucheck.evidence.siblings import Kind, Most, kind_of
from kube_gpucheck.model import Missing, Reading, Seen

TYPE = "node.kubernetes.io/instance-type"
CHASSIS = "nvidia.com/gpu.machine"
COUNT = "nvidia.com/gpu.count"
PRODUCT = "nvidia.com/gpu.product"
H200 = "NVIDIA-H200"


def cluster_of(*labels: Mapping[str, str], slices: tuple[Mapping[str, object], ...] = ()) -> Cluster:
    """Return a cluster of nodes with these labels, called gpu-0, gpu-1 and so on, with a GPU in capacity."""
    nodes = []
    for place, mine in enumerate(labels):
        one = node(f"gpu-{place}", capacity={"nvidia.com/gpu": "8"}, allocatable={"nvidia.com/gpu": "8"})
        one["metadata"]["labels"] = dict(mine)
        nodes.append(one)
    asked = {"api": ["nodes", "daemonsets.apps", "pods", "resourceslices.resource.k8s.io"]}
    content = {
        **files(),
        "bundle.json": json.dumps({**MANIFEST, "asked": asked}).encode(),
        "cluster/nodes.json": listed(*nodes),
        "cluster/pods.json": listed(),
        "cluster/resourceslices.resource.k8s.io.json": listed(*slices),
    }
    return Cluster(memory_bundle("test", content))


def first(cluster: Cluster) -> Node:
    nodes = cluster.nodes
    assert isinstance(nodes, Seen)
    return nodes.value[0]


def layers(reading: object) -> tuple[Count, ...]:
    assert isinstance(reading, Seen)
    found: tuple[Count, ...] = reading.value.layers
    return found


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ({TYPE: "p5.48xlarge"}, Kind(f"{TYPE}=p5.48xlarge", is_told=True)),
        (
            {TYPE: "n1-standard-8", "cloud.google.com/gke-nodepool": "t4"},
            Kind(f"{TYPE}=n1-standard-8, cloud.google.com/gke-nodepool=t4", is_told=True),
        ),
        ({TYPE: "rke2", CHASSIS: "XE9680", PRODUCT: H200}, Kind(f"{CHASSIS}=XE9680", is_told=False, product=H200)),
        ({TYPE: "vsphere-vm.cpu-8.mem-32gb.os-ubuntu"}, None),
        ({CHASSIS: "unknown"}, None),
        ({}, None),
    ],
)
def test_a_type_or_pool_makes_siblings_and_else_the_chassis(labels: dict[str, str], kind: Kind | None) -> None:
    assert kind_of(first(cluster_of(labels))) == Seen(kind)


def test_nodes_of_another_pool_are_no_siblings() -> None:
    pool = "eks.amazonaws.com/nodegroup"
    usual = cluster_of(*({TYPE: "p5.48xlarge", pool: name, COUNT: "8"} for name in ("a", "a", "b"))).siblings.usual
    assert isinstance(usual, Seen)
    assert {kind.words[-1]: one.nodes for kind, one in usual.value.items()} == {"a": 2, "b": 1}


def test_what_most_nodes_have_is_counted_among_those_that_tell() -> None:
    sizes = ({TYPE: "x", COUNT: count, PRODUCT: H200} for count in ("8", "8", "7", "8"))
    usual = cluster_of(*sizes, {TYPE: "x", PRODUCT: "NVIDIA-H200-MIG-1g.18gb", COUNT: "56"}).siblings.usual
    assert isinstance(usual, Seen)
    (one,) = usual.value.values()
    assert (one.nodes, one.count, one.product, one.memory_mib) == (5, Most(8, 3, 4), Most(H200, 5, 5), None)


def test_without_labels_of_gfd_capacity_tells_the_number() -> None:
    traits = cluster_of({TYPE: "x", "nvidia.com/gpu.present": "true"}).siblings.traits
    assert isinstance(traits, Seen)
    reading = traits.value["gpu-0"]
    assert isinstance(reading, Seen)
    assert reading.value is not None
    assert reading.value.count == Seen(8)


# --- the layers of one node --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("healthy/eight-gpus", (8, 8, 8, 8)),
        ("recorded/time-slicing-4", (1, 1, 1, 4)),
        ("healthy/a100-mig-mixed", (1, 1, 1, 7)),
    ],
)
def test_healthy_layers_agree_each_in_its_own_unit(name: str, expected: tuple[int, ...]) -> None:
    found = layers(counts(first(Cluster(suite.LIBRARY.build(name)))))
    assert tuple(one.found for one in found) == expected
    assert all(one.found == one.implied for one in found)


def device(name: str, **attributes: str) -> dict[str, object]:
    return {"name": name, "attributes": {key: {"string": value} for key, value in attributes.items()}}


def slice_of(*devices: Mapping[str, object], driver: str = "gpu.nvidia.com") -> dict[str, object]:
    pool = {"name": "gpu-0", "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": driver, "nodeName": "gpu-0", "pool": pool, "devices": list(devices)}
    return {"metadata": {"name": "s"}, "spec": spec}


def test_resource_slices_count_each_gpu_once() -> None:
    found = slice_of(
        device("gpu-0", type="gpu", uuid="GPU-0"),
        device("gpu-1-mig-1", type="mig", uuid="MIG-1", parentUUID="GPU-1"),
        device("gpu-1-mig-2", type="mig", parentUUID="GPU-1"),
        {"name": "gpu-2", "basic": {"attributes": {"type": {"string": "gpu"}, "uuid": {"string": "GPU-2"}}}},
    )
    daemons = slice_of(device("daemon", type="daemon"), driver="compute-domain.nvidia.com")
    cluster = cluster_of({COUNT: "3", PRODUCT: H200}, slices=(found, daemons))
    assert layers(counts(first(cluster)))[-1] == Count("ResourceSlices", 3, 3)


def test_an_invalid_mig_layout_counts_nothing() -> None:
    cluster = cluster_of({COUNT: "0", PRODUCT: "NVIDIA-H200-MIG-INVALID", TYPE: "x"})
    assert _is_unasked(counts(first(cluster)))


def _is_unasked(reading: Reading[object]) -> bool:
    return isinstance(reading, Missing) and reading.option == "--probe"


def test_labels_do_not_tell_how_many_gpus_are_whole_beside_mig() -> None:
    node = Cluster(suite.LIBRARY.build("healthy/mixed-products")).node_of("gpu-node-2")
    assert node is not None
    expected = {"nvidia.com/gpu": 4, "nvidia.com/mig-1g.10gb": 14, "nvidia.com/mig-3g.40gb": 4}
    assert node.plugin.expected == Seen(expected)
