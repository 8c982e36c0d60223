import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bundle_builders import files, listed, node
from kube_gpucheck.collect.cluster import collect
from kube_gpucheck.collect.connection import open_connection
from kube_gpucheck.collect.localhost import boot_id_of, collect_host, find_gpu, read_this_host, renamed
from kube_gpucheck.evidence import Cluster
from kube_gpucheck.evidence.bundle import Bundle, RunRecord, memory_bundle, open_bundle
from kube_gpucheck.evidence.nodereport import NodeReport
from kube_gpucheck.model import MissingEvidence, MissingKind, Seen
from kube_gpucheck.simulate.server import EmbeddedCluster
from test_collect_host import tree

BOOT = "11111111-2222-3333-4444-555555555555"


def report(name: str, boot_id: str | None = BOOT) -> NodeReport:
    host = {"format": 1, "boot_id": boot_id, "reads": {"file:/etc/os-release": {"text": "ID=x\n"}}}
    return NodeReport(
        format=1,
        node=name,
        asked=("file:/etc/os-release", "log:kernel"),
        host=msgspec.Raw(json.dumps(host).encode()),
        missing=(MissingEvidence("host/log:kernel", MissingKind.FORBIDDEN, "not permitted", "", name),),
    )


def run_record() -> RunRecord:
    record: RunRecord = memory_bundle("t", files()).manifest.run
    return record


def collected(nodes: Mapping[str, str], found: NodeReport, folder: Path) -> Bundle:
    """Return what is collected of a cluster with these nodes, by name with their boot ids, and of a host."""
    document = listed(*(node(name, nodeInfo={"bootID": boot_id}) for name, boot_id in nodes.items()))
    folder.mkdir(exist_ok=True)
    with EmbeddedCluster(memory_bundle("test", {**files(), "cluster/nodes.json": document}), name="hosts") as cluster:
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(cluster.kubeconfig(), encoding="utf-8")
        collect(open_connection(kubeconfig, environ={}), folder / "bundle", run=run_record(), tool="tests", host=found)
    return open_bundle(folder / "bundle")


def names(bundle: Bundle) -> dict[str, bool]:
    """Return the nodes by name, and whether each is one of the cluster's."""
    nodes: Any = Cluster(bundle).nodes
    return {one.name: isinstance(one.object, Seen) for one in nodes.value}


def test_the_host_is_the_node_that_was_started_when_it_was(tmp_path: Path) -> None:
    bundle = collected({"gpu-0": BOOT, "gpu-1": "other"}, report("ip-10-0-0-10"), tmp_path)

    assert bundle.hosts == ("gpu-0",)
    assert bundle.host_boot_id("gpu-0") == BOOT
    assert {one.node for one in bundle.manifest.missing if one.evidence.startswith("host")} == {"gpu-0"}
    assert names(bundle) == {"gpu-0": True, "gpu-1": True}


def test_a_host_that_no_node_was_started_with_stands_by_itself(tmp_path: Path) -> None:
    bundle = collected({"gpu-0": "other"}, report("workstation"), tmp_path)

    assert names(bundle) == {"gpu-0": True, "workstation": False}


def test_a_host_with_a_node_s_name_and_another_boot_is_not_that_node(tmp_path: Path) -> None:
    bundle = collected({"gpu-0": "other"}, report("gpu-0"), tmp_path)

    assert names(bundle) == {"gpu-0": True, "this-host.gpu-0": False}


def test_of_nodes_that_share_their_host_s_boot_it_is_the_one_of_its_name_or_none(tmp_path: Path) -> None:
    kind = {"kind-control-plane": BOOT, "kind-worker": BOOT}

    inside = collected(kind, report("kind-worker"), tmp_path / "inside")
    outside = collected(kind, report("laptop"), tmp_path / "outside")

    assert inside.hosts == ("kind-worker",)
    assert outside.hosts == ("laptop",)
    assert names(outside)["laptop"] is False


def test_a_host_alone_is_a_bundle(tmp_path: Path) -> None:
    collect_host(report("here"), tmp_path / "bundle", run=run_record(), tool="tests")

    bundle = open_bundle(tmp_path / "bundle")
    assert bundle.manifest.provenance == "live"
    assert bundle.manifest.asked.host == {"here": ("file:/etc/os-release", "log:kernel")}
    assert [one.kind for one in bundle.manifest.missing] == [MissingKind.FORBIDDEN]
    assert names(bundle) == {"here": False}


def test_credentials_on_the_host_are_replaced(tmp_path: Path) -> None:
    host = {"format": 1, "reads": {"file:/etc/containerd/config.toml": {"text": 'password = "x"\nurl = "a://u:pw@h"'}}}
    found = msgspec.structs.replace(report("here"), host=msgspec.Raw(json.dumps(host).encode()))

    collect_host(found, tmp_path / "bundle", run=run_record(), tool="tests")

    assert "pw@h" not in (tmp_path / "bundle/nodes/here/host.json").read_text()


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    found = msgspec.structs.replace(report("here"), logs={"kernel": "x"}, node="../up")

    with pytest.raises(Exception, match="leads out of the bundle"):
        collect_host(found, tmp_path / "bundle", run=run_record(), tool="tests")
    assert list(tmp_path.iterdir()) == []


def test_this_host_is_reported_under_a_name_that_a_node_can_have(tmp_path: Path) -> None:
    found = read_this_host("My_Host.example.", root=str(tmp_path))

    assert found.node == "my-host.example"
    assert "file:/etc/os-release" in found.asked
    assert boot_id_of(found) is None
    assert read_this_host("???", root=str(tmp_path), timeout_s=1).node == "this-host"


def test_a_renamed_report_is_wholly_another_node_s() -> None:
    assert renamed(report("a"), "b") == report("b")


@pytest.mark.parametrize(
    ("content", "sign"),
    [
        ({}, None),
        ({"/proc/driver/nvidia/version": "NVRM"}, "an NVIDIA driver (/proc/driver/nvidia/version)"),
        ({"/sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n"}, None),
        (
            {
                "/sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
                "/sys/bus/pci/devices/0000:01:00.0/class": "0x030200\n",
            },
            "an NVIDIA GPU at 0000:01:00.0",
        ),
        (
            {
                "/sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
                "/sys/bus/pci/devices/0000:01:00.0/class": "0x040300\n",
            },
            None,
        ),
        ({"/usr/lib/wsl/lib/libnvidia-ml.so.1": ""}, "an NVIDIA driver (/usr/lib/wsl/lib/libnvidia-ml.so.1)"),
    ],
)
def test_a_gpu_is_found_by_what_bus_and_driver_show(
    tmp_path: Path, content: Mapping[str, str], sign: str | None
) -> None:
    assert find_gpu(Path(tree(tmp_path, content))) == sign


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_what_may_not_be_looked_at_is_no_sign(tmp_path: Path) -> None:
    tree(tmp_path, {"/sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n"})
    (tmp_path / "sys/bus/pci/devices").chmod(0)
    assert find_gpu(tmp_path) is None
