"""What GPUs, MIG profiles and sharing make of a node's capacity, and why what it offers differs."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from bundle_builders import MANIFEST, listed, node
from kube_gpucheck.evidence import Cluster, Node
from kube_gpucheck.evidence.bundle import memory_bundle
from kube_gpucheck.evidence.capacity import Difference, difference, profile_of
from kube_gpucheck.evidence.sharing import Replication, Sharing, parse_config
from kube_gpucheck.evidence.tables import mig_product, mig_products
from kube_gpucheck.model import Seen

GPU = "nvidia.com/gpu"
SHARED = "nvidia.com/gpu.shared"
MIB = 2**20
NAMES = {
    "A30": ("NVIDIA A30", 24576),
    "A100 40 GB": ("NVIDIA A100-SXM4-40GB", 40960),
    "A100 80 GB": ("NVIDIA A100 80GB PCIe", 81920),
    "H100 80 GB": ("NVIDIA H100 80GB HBM3", 81559),
    "H100 94 GB": ("NVIDIA H100 NVL", 95830),
    "H100 96 GB": ("NVIDIA GH200 480GB", 97871),
    "GH200 144 GB": ("NVIDIA GH200 144G HBM3e", 147000),
    "H200": ("NVIDIA H200", 143771),
    "B200": ("NVIDIA B200", 183359),
    "GB200": ("NVIDIA GB200", 189471),
    "RTX PRO 6000": ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887),
}
"""What NVML calls each product of the table, and its memory in MiB."""
PROFILES = [(one.product, profile, most) for one in mig_products() for profile, most in one.profiles.items()]


def node_of(*profiles: str, strategy: str, product: str, offered: Mapping[str, str]) -> Node:
    """Return a node with one GPU cut into these MIG devices, and a device plugin with this strategy."""
    name, memory = NAMES[product]
    reads: dict[str, Any] = {
        "nvml:nvmlInit_v2": {"code": 0},
        "nvml:nvmlDeviceGetCount_v2": {"code": 0, "value": 1},
        "nvml:nvmlDeviceGetName(0)": {"code": 0, "value": name},
        "nvml:nvmlDeviceGetMigMode(0)": {"code": 0, "value": [int(bool(profiles))] * 2},
        "nvml:nvmlDeviceGetMemoryInfo(0)": {"code": 0, "value": {"total": memory * MIB, "free": 0, "used": 0}},
    }
    for place, profile in enumerate(profiles):
        value = {"name": f"{name} MIG {profile}"}
        reads[f"nvml:nvmlDeviceGetMigDeviceHandleByIndex(0,{place})"] = {"code": 0, "value": value}
    environment = [{"name": "MIG_STRATEGY", "value": strategy}]
    plugin = {
        "metadata": {"name": "plugin", "namespace": "default", "uid": "1"},
        "spec": {
            "containers": [{"name": "ctr", "image": "nvcr.io/nvidia/k8s-device-plugin:v0.20.0", "env": environment}],
            "nodeName": "gpu-0",
        },
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }
    asked = {"api": ["nodes", "pods", "daemonsets.apps"], "host": {"gpu-0": list(reads)}}
    content = {
        "bundle.json": json.dumps({**MANIFEST, "asked": asked}).encode(),
        "cluster/nodes.json": listed(node(capacity=offered, allocatable=offered)),
        "cluster/pods.json": listed(plugin),
        "cluster/daemonsets.apps.json": listed(),
        "nodes/gpu-0/host.json": json.dumps({"format": 1, "reads": reads}).encode(),
    }
    found = Cluster(memory_bundle("test", content)).node_of("gpu-0")
    assert found is not None
    return found


def test_the_table_knows_each_product_by_its_name_and_memory() -> None:
    assert {product: _called(*NAMES[product]) for product in NAMES} == {product: product for product in NAMES}
    assert {one.product for one in mig_products()} == set(NAMES)


def _called(name: str, memory_mib: int) -> str | None:
    found = mig_product(name, memory_mib)
    return None if found is None else found.product


@pytest.mark.parametrize("name", ["NVIDIA L40S", "Tesla V100-SXM2-32GB", "NVIDIA GeForce RTX 4090", ""])
def test_a_product_without_mig_is_not_in_it(name: str) -> None:
    assert mig_product(name, 46068) is None


@pytest.mark.parametrize(("product", "profile", "most"), PROFILES)
@pytest.mark.parametrize("strategy", ["none", "single", "mixed"])
def test_every_profile_becomes_what_the_strategy_makes_of_it(
    product: str, profile: str, most: int, strategy: str
) -> None:
    mixed = f"nvidia.com/mig-{profile.replace('+', '.')}"
    expected = {"none": {GPU: 1}, "single": {GPU: most}, "mixed": {mixed: most}}[strategy]
    one = node_of(*[profile] * most, strategy=strategy, product=product, offered={})
    assert one.plugin.expected == Seen(expected)
    table = mig_product(*NAMES[product])
    assert table is not None
    assert profile_of(mixed, table) == profile


def test_a_compute_instance_is_a_part_of_its_profile() -> None:
    table = mig_product(*NAMES["H100 80 GB"])
    assert table is not None
    assert profile_of("nvidia.com/mig-1c.3g.40gb", table) == "3g.40gb"


def shared(name: str, offered: str, replicas: int) -> Sharing:
    return Sharing("time-slicing", (Replication(name, offered, replicas),))


MIG = "nvidia.com/mig-1g.10gb"


@pytest.mark.parametrize(
    ("offered", "expected", "sharing", "words"),
    [
        ({GPU: 7}, {GPU: 8}, Sharing(), "started before the driver listed every GPU"),
        ({GPU: 8}, {GPU: 7}, Sharing(), "GPUs that are no longer there"),
        ({GPU: 32}, {GPU: 8}, Sharing(), "offered 4 times"),
        ({GPU: 8}, {GPU: 32}, shared(GPU, GPU, 4), "without the 4 replicas"),
        ({GPU: 28}, {GPU: 32}, shared(GPU, GPU, 4), "counted 7 of 8 devices"),
        ({GPU: 8}, {SHARED: 32}, shared(GPU, SHARED, 4), "renames shared nvidia.com/gpu to nvidia.com/gpu.shared"),
        ({SHARED: 32}, {GPU: 8}, Sharing(), "as a configuration that renames"),
        ({GPU: 8}, {MIG: 56}, Sharing(), "before these were cut into MIG devices"),
        ({MIG: 56}, {GPU: 8}, Sharing(), "MIG devices that are no more"),
        ({MIG: 7}, {"nvidia.com/mig-3g.40gb": 2}, Sharing(), "layout was changed"),
        ({MIG: 7}, {MIG: 28}, shared(MIG, MIG, 4), "without the 4 replicas"),
    ],
)
def test_each_difference_has_its_own_reading(
    offered: dict[str, int], expected: dict[str, int], sharing: Sharing, words: str
) -> None:
    assert words in str(Difference(offered, expected, sharing))


def test_devices_that_the_product_cannot_have_are_another_gpus() -> None:
    offered = {"nvidia.com/mig-1g.5gb": "7"}
    here = node_of("1g.10gb", strategy="mixed", product="H100 80 GB", offered=offered)
    said = str(difference(here, {"nvidia.com/mig-1g.5gb": 7}, {"nvidia.com/mig-1g.10gb": 1}))
    assert said.startswith("nvidia.com/mig-1g.5gb is no profile of this product (H100 80 GB has 1g.10gb, 1g.10gb+me,")


def test_more_devices_than_the_gpus_hold_are_of_gpus_that_have_gone() -> None:
    here = node_of("3g.40gb", "3g.40gb", strategy="mixed", product="H100 80 GB", offered={})
    said = str(difference(here, {"nvidia.com/mig-3g.40gb": 16}, {"nvidia.com/mig-3g.40gb": 2}))
    assert said == "16 devices of 3g.40gb are more than 1 GPU holds: GPUs have gone"


@pytest.mark.parametrize(
    ("section", "devices", "offered"),
    [
        ("timeSlicing", {GPU: 2}, {GPU: 8}),
        ("timeSlicing", {MIG: 7}, {MIG: 7}),
        ("mps", {GPU: 2}, {GPU: 8}),
    ],
)
def test_sharing_multiplies_what_it_names(section: str, devices: dict[str, int], offered: dict[str, int]) -> None:
    config = parse_config(f"version: v1\nsharing: {{{section}: {{resources: [{{name: {GPU}, replicas: 4}}]}}}}\n")
    assert config.offered(devices) == offered


@pytest.mark.parametrize(("name", "title"), [(GPU, SHARED), (MIG, f"{MIG}.shared")])
def test_shared_resources_are_renamed_by_default_where_asked(name: str, title: str) -> None:
    text = "version: v1\nsharing: {timeSlicing: {renameByDefault: true, failRequestsGreaterThanOne: true, resources: "
    config = parse_config(text + f"[{{name: {name}, replicas: 3}}]}}}}\n")
    assert (config.offered({name: 2}), config.sharing.refuses_above_one) == ({title: 6}, True)
