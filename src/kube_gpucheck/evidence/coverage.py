"""What serves GPUs in a cluster, and which GPU nodes a device plugin leaves out."""

import re
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.kubeletroot import kubelet_paths
from kube_gpucheck.evidence.readings import attempt, need
from kube_gpucheck.evidence.stack import PLUGIN_FOLDER, Component
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.daemonset import DaemonSet
    from kube_gpucheck.evidence.node import Node

HOST_SERVICE: Final = re.compile(r"Bottlerocket|EKS Auto|Amazon Linux.*Auto", re.IGNORECASE)
"""Node images in which the plugin is a service of the host. Source: upstream-facts §5."""
OPT_OUTS: Final = {
    "nvidia.com/gpu.deploy.device-plugin": {"false"},
    "nvidia.com/gpu.deploy.operands": {"false"},
    "nvidia.com/gpu.workload.config": {"vm-passthrough", "vm-vgpu"},
}
"""Labels by which a person keeps the device plugin off a node on purpose. Source: upstream-facts §8."""


class Uncovered(msgspec.Struct, frozen=True):
    """A GPU node on which a device-plugin DaemonSet wants no pod, with the rule that excludes it, in words and keys."""

    node: str
    reason: str
    rule: str
    keys: tuple[str, ...]

    @property
    def is_condition(self) -> bool:
        """Whether a condition of the node excludes it, that passes when the node is well again."""
        return self.rule == "taint" and all(key.startswith("node.kubernetes.io/") for key in self.keys)


def is_device_plugin(daemonset: "DaemonSet") -> Reading[bool]:
    """Return whether a DaemonSet is a device plugin, NVIDIA's or the provider's."""
    return Seen(daemonset.component in {Component.DEVICE_PLUGIN, Component.PROVIDER_DEVICE_PLUGIN})


def uncovered(daemonset: "DaemonSet") -> Reading[tuple[Uncovered, ...]]:
    """Return the GPU nodes that neither this DaemonSet nor another device plugin wants a pod on.

    Left out: nodes that a person keeps it off by label, and nodes that DRA serves.
    """

    def derive() -> tuple[Uncovered, ...]:
        cluster = daemonset.cluster
        every = (*need(cluster.stack.device_plugins), *need(cluster.stack.other_plugins))
        others = [one for one in every if one is not daemonset]
        found = []
        for node in need(cluster.gpu_nodes):
            mine = need(daemonset.rejection(node))
            if mine is None or any(need(one.rejection(node)) is None for one in others) or _is_left_out(node):
                continue
            found.append(Uncovered(node.name, str(mine), mine.rule, mine.keys))
        return tuple(found)

    return attempt(derive)


def _is_left_out(node: "Node") -> bool:
    labels = need(node.labels)
    if any(labels.get(key) in values for key, values in OPT_OUTS.items()):
        return True
    offering = node.cluster.dra.offering
    if isinstance(offering, Missing) and offering.kind is MissingKind.NOT_ASKED:
        return False
    return node.name in need(offering)


def covered_count(daemonset: "DaemonSet") -> Reading[int]:
    """Return on how many GPU nodes the DaemonSet's pods may run."""

    def derive() -> int:
        return sum(need(daemonset.rejection(node)) is None for node in need(daemonset.cluster.gpu_nodes))

    return attempt(derive)


def servers(cluster: "Cluster") -> Reading[tuple[str, ...]]:
    """Return what serves GPUs in a cluster, the first kind that is found; empty if nothing does.

    In order: device-plugin DaemonSets, DRA plugins, those of another make, device plugins in pods of another kind,
    services of node images, DaemonSets of an unknown make that reach the kubelet's plugin folder on nodes that offer
    GPUs, and whatever else makes a kubelet offer them.
    """

    def derive() -> tuple[str, ...]:
        plugins = cluster.stack
        stack = (*need(plugins.device_plugins), *need(plugins.dra_plugins), *need(plugins.other_plugins))
        if stack:
            return tuple(f"DaemonSet {one.namespace}/{one.name}" for one in stack)
        kinds = {
            Component.DEVICE_PLUGIN,
            Component.PROVIDER_DEVICE_PLUGIN,
            Component.OTHER_DEVICE_PLUGIN,
            Component.DRA_KUBELET_PLUGIN,
        }
        pods = [
            pod for pod in need(cluster.readable_pods) if need(pod.component) in kinds and not need(pod.is_finished)
        ]
        if pods:
            return tuple(f"pod {one.namespace}/{one.name}" for one in pods)
        offering = [
            node
            for node in need(cluster.nodes)
            if isinstance(node.object, Seen) and any(need(node.allocatable).values())
        ]
        images = [node for node in offering if HOST_SERVICE.search(need(node.object).status.node_info.os_image)]
        if images:
            return tuple(f"a service of the image of {node.name}" for node in images)
        daemonsets = need(cluster.daemonsets)
        unknown = [
            one
            for one in daemonsets
            if offering
            and any(path.endswith(PLUGIN_FOLDER) for path in kubelet_paths(need(one.object).spec.template.spec))
        ]
        for daemonset in daemonsets:
            need(daemonset.object)  # a malformed one might be what serves
        for pod in need(cluster.pods):
            need(pod.outline)
        found = tuple(f"DaemonSet {one.namespace}/{one.name}" for one in unknown)
        return found or tuple(f"something unknown on {node.name}, whose kubelet offers GPUs" for node in offering)

    return attempt(derive)
