"""Releases of Kubernetes and of the device plugin, and what one asks of the other. Judges nothing."""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.delivery import strategies
from kube_gpucheck.evidence.discovery import chart_version
from kube_gpucheck.evidence.readings import attempt, need
from kube_gpucheck.evidence.stack import Component, version_of
from kube_gpucheck.model import Reading

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.daemonset import DaemonSet
    from kube_gpucheck.evidence.node import Node

Release = tuple[int, int]
"""A release of Kubernetes: major and minor."""
_RELEASE: Final = re.compile(r"v?(\d{1,3})\.(\d{1,4})(?:\D|$)")


class Kubelets(msgspec.Struct, frozen=True):
    """The releases of a cluster's server and kubelets. `nodes`: the nodes of each kubelet's release, in order of name.

    Without nodes whose kubelet reports no engine: they are virtual, and tell the release of a library.
    """

    server: Release | None
    nodes: dict[Release, tuple[str, ...]]


def release_of(text: str) -> Release | None:
    """Return the release of Kubernetes that a version (`v1.24.9+rke2r2`) is of, None if it is no version."""
    found = _RELEASE.match(text)
    return (int(found[1]), int(found[2])) if found else None


def kubelets(cluster: "Cluster") -> Reading[Kubelets]:
    """Return the releases of server and kubelets. Source: /version; status.nodeInfo.kubeletVersion."""

    def derive() -> Kubelets:
        server = release_of(need(cluster.discovery).version)
        found: dict[Release, list[str]] = defaultdict(list)
        for node in need(cluster.offers.nodes):
            release = _kubelet(node)
            if release is not None:
                found[release].append(node.name)
        return Kubelets(server, {release: tuple(names) for release, names in sorted(found.items())})

    return attempt(derive)


def _kubelet(node: "Node") -> Release | None:
    info = need(node.object).status.node_info
    return release_of(info.kubelet_version) if info.container_runtime_version else None


class PluginRelease(msgspec.Struct, frozen=True):
    """One device plugin of NVIDIA's. `version`: None where neither its image nor its chart tells one.

    `only_by_cdi`: it hands devices to the kubelet as CDI names alone (strategy `cdi-cri`).
    """

    name: str
    version: tuple[int, int, int] | None
    only_by_cdi: bool
    nodes: tuple[str, ...]


def plugin_releases(cluster: "Cluster") -> Reading[tuple[PluginRelease, ...]]:
    """Return the device plugins of NVIDIA's with the nodes that each may run on, in order of name."""

    def derive() -> tuple[PluginRelease, ...]:
        mine = [one for one in need(cluster.stack.device_plugins) if one.component is Component.DEVICE_PLUGIN]
        return tuple(_release(one, need(cluster.gpu_nodes)) for one in mine)

    return attempt(derive)


def _release(plugin: "DaemonSet", nodes: "Iterable[Node]") -> PluginRelease:
    container = need(plugin.main_container)
    return PluginRelease(
        str(plugin.subject),
        version_of(container.image) or chart_version(plugin),
        set(strategies(container)) == {"cdi-cri"},
        tuple(node.name for node in nodes if need(plugin.selects(node)) is None),
    )
