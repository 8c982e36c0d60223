"""Small bundles for tests: just enough of a cluster to be judged. Not evidence of anything real."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kube_gpucheck.evidence import Cluster, Node
from kube_gpucheck.evidence.bundle import memory_bundle

MANIFEST: dict[str, Any] = {
    "format": 1,
    "tool": "tests",
    "run": {"id": "test", "started": "2026-01-01T00:00:00Z", "gathered_at": "2026-01-01T00:00:00Z"},
    "provenance": "hand-made",
    "asked": {"api": ["nodes", "runtimeclasses.node.k8s.io", "daemonsets.apps", "pods", "events"]},
}


def node(name: str = "gpu-0", **status: Any) -> dict[str, Any]:
    """Return a Node with a GPU label."""
    return {
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.present": "true"}},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {}, **status},
    }


def pod(name: str = "web") -> dict[str, Any]:
    """Return a running pod that has nothing to do with GPUs."""
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "main", "image": "web"}], "nodeName": "gpu-0"},
        "status": {"phase": "Running"},
    }


def listed(*items: Mapping[str, Any]) -> bytes:
    """Return a Kubernetes list."""
    return json.dumps({"kind": "List", "items": list(items)}).encode()


def files(**changes: Any) -> dict[str, bytes]:
    """Return a small bundle's files; `changes` are merged into its bundle.json."""
    return {
        "bundle.json": json.dumps({**MANIFEST, **changes}).encode(),
        "cluster/nodes.json": listed(node()),
        "cluster/runtimeclasses.node.k8s.io.json": listed({"metadata": {"name": "nvidia"}, "handler": "nvidia"}),
        "cluster/daemonsets.apps.json": listed(),
        "cluster/pods.json": listed(pod()),
        "cluster/events.json": listed(),
    }


def write(folder: Path, content: Mapping[str, bytes]) -> Path:
    """Write files into a folder and return it."""
    for path, data in content.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return folder


def memory_node(reads: Mapping[str, Any], *, engine: str, logs: Mapping[str, str] | None = None) -> Node:
    """Return the one node of a bundle whose host was read so, on a plain distribution; `logs` by unit."""
    info = {"kubeletVersion": "v1.36.2", "containerRuntimeVersion": engine}
    asked = {"api": ["nodes"], "host": {"gpu-0": list(reads)}}
    content = {
        "bundle.json": json.dumps({**MANIFEST, "asked": asked}).encode(),
        "cluster/nodes.json": listed(node(nodeInfo=info)),
        "nodes/gpu-0/host.json": json.dumps({"format": 1, "reads": dict(reads)}).encode(),
        **{f"nodes/gpu-0/logs/{unit}.log": text.encode() for unit, text in (logs or {}).items()},
    }
    found = Cluster(memory_bundle("test", content)).node_of("gpu-0")
    assert found is not None
    return found


def memory_host(reads: Mapping[str, Any], *, logs: Mapping[str, str] | None = None) -> Node:
    """Return a host with a GPU on its bus, alone: no Kubernetes was asked; `logs` by unit."""
    bus = {
        "list:/sys/bus/pci/devices": {"entries": [{"name": "0000:00:06.0", "type": "link"}]},
        "file:/sys/bus/pci/devices/0000:00:06.0/vendor": {"text": "0x10de\n"},
        "file:/sys/bus/pci/devices/0000:00:06.0/class": {"text": "0x030200\n"},
        "file:/sys/bus/pci/devices/0000:00:06.0/device": {"text": "0x2335\n"},
        "link:/sys/bus/pci/devices/0000:00:06.0/driver": {"text": "../../../bus/pci/drivers/nvidia"},
    }
    asked = {"host": {"gpu-0": [*bus, *reads, *(f"log:{unit}" for unit in logs or ())]}}
    content = {
        "bundle.json": json.dumps({**MANIFEST, "asked": asked}).encode(),
        "nodes/gpu-0/host.json": json.dumps({"format": 1, "reads": {**bus, **reads}}).encode(),
        **{f"nodes/gpu-0/logs/{unit}.log": text.encode() for unit, text in (logs or {}).items()},
    }
    found = Cluster(memory_bundle("test", content)).node_of("gpu-0")
    assert found is not None
    return found
