"""Makes a generated node, its lease and its NodeFeature objects."""

import datetime
import functools
from typing import Any, Final

from kube_gpucheck.simulate.generated import managed
from kube_gpucheck.simulate.generated.plan import NodePlan, digest, machines, stamp

Json = dict[str, Any]
_NFD: Final = "feature.node.kubernetes.io"
_CONDITIONS: Final = (
    ("NetworkUnavailable", "False", "FlannelIsUp", "Flannel is running on this node"),
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


LAST_POD_S: Final = 60 + 86_400
"""After so many seconds, at the latest, the pods of a new node have begun."""


def gfd_labels(plan: NodePlan) -> dict[str, str]:
    """Return the labels that GFD 0.20 writes without MIG, for all GPUs of the node."""
    product = plan.product
    driver, cuda = plan.machines.driver.split("."), plan.machines.cuda.split(".")
    compute = product.compute.split(".")
    return {
        "nvidia.com/cuda.driver-version.full": plan.machines.driver,
        "nvidia.com/cuda.driver-version.major": driver[0],
        "nvidia.com/cuda.driver-version.minor": driver[1],
        "nvidia.com/cuda.driver-version.revision": driver[2],
        "nvidia.com/cuda.driver.major": driver[0],
        "nvidia.com/cuda.driver.minor": driver[1],
        "nvidia.com/cuda.driver.rev": driver[2],
        "nvidia.com/cuda.runtime-version.full": plan.machines.cuda,
        "nvidia.com/cuda.runtime-version.major": cuda[0],
        "nvidia.com/cuda.runtime-version.minor": cuda[1],
        "nvidia.com/cuda.runtime.major": cuda[0],
        "nvidia.com/cuda.runtime.minor": cuda[1],
        "nvidia.com/gfd.timestamp": str(int(plan.created.timestamp()) + LAST_POD_S + 1),
        "nvidia.com/gpu.compute.major": compute[0],
        "nvidia.com/gpu.compute.minor": compute[1],
        "nvidia.com/gpu.count": str(plan.gpus),
        "nvidia.com/gpu.family": product.family,
        "nvidia.com/gpu.machine": product.machine,
        "nvidia.com/gpu.memory": str(product.memory),
        "nvidia.com/gpu.mode": "compute",
        "nvidia.com/gpu.product": product.product,
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/mig.capable": str(product.mig).lower(),
        "nvidia.com/mps.capable": "false",
    }


@functools.cache
def _of_processor(cpu: str, kernel: str) -> dict[str, str]:
    processor = machines().cpus[cpu]
    major, minor, revision = kernel.split("-", 1)[0].split(".")
    return {
        **{f"{_NFD}/cpu-cpuid.{flag}": "true" for flag in processor.cpuid},
        f"{_NFD}/cpu-model.family": processor.family,
        f"{_NFD}/cpu-model.id": processor.id,
        f"{_NFD}/cpu-model.vendor_id": processor.vendor,
        f"{_NFD}/kernel-version.full": kernel,
        f"{_NFD}/kernel-version.major": major,
        f"{_NFD}/kernel-version.minor": minor,
        f"{_NFD}/kernel-version.revision": revision,
        **processor.more,
    }


def nfd_labels(plan: NodePlan) -> dict[str, str]:
    """Return the labels that the NFD worker writes."""
    common = {key: value for key, value in machines().labels.items() if key.startswith(_NFD)}
    return {
        **common,
        **_of_processor(plan.product.cpu, plan.machines.kernel),
        f"{_NFD}/cpu-hardware_multithreading": str(plan.product.cpu == "intel").lower(),
        **(machines().labels_with_gpu if plan.gpus else {}),
    }


def labels(plan: NodePlan) -> dict[str, str]:
    """Return all labels of the node, in order of name, as the API gives them."""
    found = {
        **machines().labels,
        "kubernetes.io/hostname": plan.name,
        "node.kubernetes.io/instance-type": plan.product.instance,
        "beta.kubernetes.io/instance-type": plan.product.instance,
        "topology.kubernetes.io/zone": f"hall-{plan.place // 1000 + 1}",
        "topology.example.com/rack": f"r{plan.place // 8:04d}",
        "example.com/team": plan.team,
        "example.com/pool": "gpu" if plan.gpus else "general",
        **nfd_labels(plan),
        **(gfd_labels(plan) if plan.gpus else {}),
    }
    return dict(sorted(found.items()))


@functools.cache
def _images(cpu_only: bool) -> list[Json]:  # noqa: FBT001  a cache's key
    found: list[Json] = []
    for repository, tag, size in machines().images:
        if cpu_only and ("nvcr.io" in repository or "ml/" in repository):
            continue
        names = [f"{repository}@sha256:{digest(repository, tag)}", f"{repository}:{tag}"]
        found.append({"names": names, "sizeBytes": size * 1_048_576 + int(digest(repository, tag)[:4], 16)})
    return found


def node(plan: NodePlan) -> Json:
    """Return the node as a healthy one; the documents may share parts, so a change replaces what it changes."""
    created, at = stamp(plan.created), plan.cluster.at
    beat = stamp(at - datetime.timedelta(seconds=plan.number(280, "heartbeat")))
    found = labels(plan)
    of_features = ",".join(key.removeprefix(f"{_NFD}/") for key in found if key.startswith((_NFD, "nvidia.com/")))
    annotations = {
        "alpha.kubernetes.io/provided-node-ip": plan.address,
        "flannel.alpha.coreos.com/backend-data": f'{{"VNI":1,"VtepMAC":"{_mac(plan)}"}}',
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/public-ip": plan.address,
        "nfd.node.kubernetes.io/feature-labels": of_features,
        "nfd.node.kubernetes.io/worker.version": "v0.18.2",
        "node.alpha.kubernetes.io/ttl": "300",
        "projectcalico.org/IPv4IPIPTunnelAddr": plan.pod_address(-1),
        "rke2.io/hostname": plan.name,
        "rke2.io/internal-ip": plan.address,
        "rke2.io/node-args": '["agent"]',
        "volumes.kubernetes.io/controller-managed-attach-detach": "true",
    }
    capacity = {
        "cpu": str(plan.product.cores),
        "ephemeral-storage": "1843269236Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "memory": f"{plan.product.ram_gib * 1048576 + plan.number(4096, 'memory')}Ki",
        **({"nvidia.com/gpu": str(plan.gpus)} if plan.gpus else {}),
        "pods": "110",
    }
    version = plan.machines.kubernetes
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "annotations": annotations,
            "creationTimestamp": created,
            "labels": found,
            "managedFields": [
                managed.entry("rke2", "v1", created, _joined(plan.product.cpu)),
                managed.entry(
                    "nfd-master",
                    "v1",
                    created,
                    {"f:metadata": {"f:annotations": _ANNOTATED, "f:labels": {}}},
                ),
                managed.entry("kubelet", "v1", beat, _STATUS, subresource="status"),
            ],
            "name": plan.name,
            "resourceVersion": str(10_000_000 + plan.number(90_000_000, "version")),
            "uid": plan.uid("node"),
        },
        "spec": {
            "podCIDR": f"{plan.pod_address(-2)}/24",
            "podCIDRs": [f"{plan.pod_address(-2)}/24"],
            "providerID": f"rke2://{plan.name}",
        },
        "status": {
            "addresses": [
                {"address": plan.address, "type": "InternalIP"},
                {"address": plan.name, "type": "Hostname"},
            ],
            "allocatable": {**capacity, "ephemeral-storage": "1793132312408"},
            "capacity": capacity,
            "conditions": [
                {
                    "lastHeartbeatTime": created if kind == "NetworkUnavailable" else beat,
                    "lastTransitionTime": created,
                    "message": message,
                    "reason": reason,
                    "status": status,
                    "type": kind,
                }
                for kind, status, reason, message in _CONDITIONS
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "images": _images(not plan.gpus),
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": plan.uid("boot"),
                "containerRuntimeVersion": plan.machines.engine,
                "kernelVersion": plan.machines.kernel,
                "kubeProxyVersion": "",
                "kubeletVersion": version,
                "machineID": plan.uid("machine").replace("-", ""),
                "operatingSystem": "linux",
                "osImage": plan.machines.os_image,
                "swap": {"capacity": 0},
                "systemUUID": plan.uid("system"),
            },
            **({"runtimeHandlers": handlers(nvidia=plan.gpus > 0)} if plan.machines.tells_handlers else {}),
        },
    }


def handlers(*, nvidia: bool) -> list[Json]:
    """Return what containerd 2 tells the kubelet of its runtimes."""
    features = {"recursiveReadOnlyMounts": True, "userNamespaces": True}
    return [{"features": features, "name": name} for name in ("", "runc", *(("nvidia",) if nvidia else ()))]


def _mac(plan: NodePlan) -> str:
    raw = plan.uid("mac").replace("-", "")
    return ":".join(raw[place : place + 2] for place in range(0, 12, 2))


_ANNOTATED: Final[Json] = {"f:nfd.node.kubernetes.io/feature-labels": {}, "f:nfd.node.kubernetes.io/worker.version": {}}
_STATUS: Final = {
    "f:status": {
        "f:allocatable": {"f:memory": {}, "f:nvidia.com/gpu": {}},
        "f:capacity": {"f:memory": {}, "f:nvidia.com/gpu": {}},
        "f:conditions": {f'k:{{"type":"{kind}"}}': {"f:lastHeartbeatTime": {}} for kind, *_ in _CONDITIONS[1:]},
        "f:images": {},
        "f:nodeInfo": {"f:bootID": {}, "f:kernelVersion": {}},
        "f:runtimeHandlers": {},
    }
}


@functools.cache
def _joined(cpu: str) -> Json:
    return {"f:metadata": {"f:labels": {".": {}, **{f"f:{key}": {} for key in machines().labels}, f"f:{cpu}": {}}}}


def lease(plan: NodePlan) -> Json:
    """Return the node's lease; the kubelet renews it every ten seconds."""
    renewed = plan.cluster.at - datetime.timedelta(seconds=plan.number(10, "lease"))
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "creationTimestamp": stamp(plan.created),
            "name": plan.name,
            "namespace": "kube-node-lease",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": plan.name, "uid": plan.uid("node")}],
            "resourceVersion": str(10_000_000 + plan.number(90_000_000, "lease-version")),
            "uid": plan.uid("lease"),
        },
        "spec": {
            "holderIdentity": plan.name,
            "leaseDurationSeconds": 40,
            "renewTime": f"{renewed:%Y-%m-%dT%H:%M:%S}.{plan.number(1_000_000, 'micro'):06d}Z",
        },
    }


def worker_features(plan: NodePlan) -> Json:
    """Return the NodeFeature of the NFD worker."""
    devices = [{"attributes": {"class": "0200", "device": "1021", "vendor": "15b3"}}] * (2 if plan.gpus else 1)
    devices += [{"attributes": {"class": "0302", "device": "2335", "vendor": "10de"}}] * plan.gpus
    processor = machines().cpus[plan.product.cpu]
    return _feature(
        plan,
        "node-feature-discovery",
        plan.name,
        labels=nfd_labels(plan),
        features={
            "attributes": {
                "cpu.model": {
                    "elements": {"family": processor.family, "id": processor.id, "vendor_id": processor.vendor}
                },
                "kernel.version": {"elements": {"full": plan.machines.kernel}},
                "system.name": {"elements": {"nodename": plan.name}},
            },
            "flags": {
                "cpu.cpuid": {"elements": {flag: {} for flag in processor.cpuid}},
                "kernel.loadedmodule": {"elements": {module: {} for module in machines().modules}},
            },
            "instances": {"pci.device": {"elements": devices}},
        },
    )


def gpu_features(plan: NodePlan) -> Json:
    """Return the NodeFeature of GFD."""
    return _feature(
        plan,
        "nvidia-device-plugin",
        f"nvidia-features-for-{plan.name}",
        labels=gfd_labels(plan),
        features={"attributes": {}, "flags": {}, "instances": {}},
    )


def _feature(plan: NodePlan, namespace: str, name: str, *, labels: dict[str, str], features: Json) -> Json:
    return {
        "apiVersion": "nfd.k8s-sigs.io/v1alpha1",
        "kind": "NodeFeature",
        "metadata": {
            "creationTimestamp": stamp(plan.created),
            "generation": 1,
            "labels": {"nfd.node.kubernetes.io/node-name": plan.name},
            "name": name,
            "namespace": namespace,
            "resourceVersion": str(10_000_000 + plan.number(90_000_000, name)),
            "uid": plan.uid("features", namespace),
        },
        "spec": {"features": features, "labels": labels},
    }
