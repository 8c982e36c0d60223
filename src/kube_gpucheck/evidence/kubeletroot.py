"""Whether the hostPaths of the GPU stack lead to the kubelet's real root folder on a node."""

from typing import TYPE_CHECKING

import msgspec

from kube_gpucheck.evidence.documents import PodSpec
from kube_gpucheck.evidence.podstate import is_running, live_pods
from kube_gpucheck.evidence.readings import attempt, need
from kube_gpucheck.evidence.stack import PLUGIN_FOLDER
from kube_gpucheck.model import Missing, MissingKind, Reading

if TYPE_CHECKING:
    from kube_gpucheck.evidence.daemonset import DaemonSet
    from kube_gpucheck.evidence.node import Node


class WrongPath(msgspec.Struct, frozen=True):
    """A hostPath that does not lead to the kubelet, and what was found instead."""

    path: str
    found: str


def wanted_nodes(daemonset: "DaemonSet") -> "Reading[tuple[Node, ...]]":
    """Return the nodes on which a DaemonSet has pods, in order of name."""

    def derive() -> "tuple[Node, ...]":
        places = {pod.node_name for pod in need(live_pods(daemonset)) if pod.node_name is not None}
        nodes = need(daemonset.cluster.nodes_by_name) if places else {}
        return tuple(nodes[name] for name in sorted(places) if name in nodes)

    return attempt(derive)


def misplaced(daemonset: "DaemonSet", node: "Node") -> Reading[WrongPath | None]:
    """Return which hostPath of a DaemonSet does not lie under the kubelet's root on a node, None if all do.

    The root is where `kubelet.sock` was listed; where no folder was listed, the device plugin's log decides: it
    registered through its own hostPath, or did not find the socket there.
    """

    def derive() -> WrongPath | None:
        paths = kubelet_paths(need(daemonset.object).spec.template.spec)
        root = node.kubelet.root
        if isinstance(root, Missing) and root.kind is MissingKind.NOT_ASKED:
            return _by_log(node, paths, root)
        known = need(root)
        for path in paths:
            implied = kubelet_root_of(path)
            if known is not None and implied != known:
                return WrongPath(path, f"kubelet.sock is in {known}/{PLUGIN_FOLDER}")
            if known is None:
                looked = [folder for folder in node.kubelet.folders if folder == f"{implied}/{PLUGIN_FOLDER}"]
                if looked:
                    return WrongPath(path, f"{looked[0]} holds no kubelet.sock")
                need(
                    Missing(
                        MissingKind.ERROR,
                        f"no folder that was listed on {node.name} holds kubelet.sock",
                        f"nodes/{node.name}/host.json",
                    )
                )
        return None

    return attempt(derive)


def _by_log(node: "Node", paths: tuple[str, ...], unlisted: Missing) -> WrongPath | None:
    for pod in need(node.plugin.pods):
        if not need(is_running(pod)):
            continue
        log = need(node.plugin.log(pod))
        for path in kubelet_paths(need(pod.object).spec):
            mine = [one for one in paths if kubelet_root_of(one) != kubelet_root_of(path)]
            if log.registered:
                return WrongPath(mine[0], f"the device plugin registered through {path}") if mine else None
            if log.socket and len(mine) < len(paths):
                return WrongPath(path, f"the device plugin's log says that {log.socket} is not there")
    need(unlisted)
    return None


def kubelet_paths(spec: PodSpec) -> tuple[str, ...]:
    """Return the hostPaths by which a pod reaches the kubelet: its plugin, pod-resources and DRA folders."""
    names = {PLUGIN_FOLDER, "pod-resources", "plugins", "plugins_registry"}
    found = []
    for volume in spec.volumes or ():
        if volume.host_path is not None:
            path = volume.host_path.path.rstrip("/")
            parts = path.split("/")
            if names & set(parts) and ("kubelet" in path or parts[-1] in {PLUGIN_FOLDER, "pod-resources"}):
                found.append(path)
    return tuple(found)


def kubelet_root_of(path: str) -> str:
    """Return the kubelet's root that a hostPath of a plugin implies: what stands above the folder that it names."""
    parts = path.rstrip("/").split("/")
    for place, part in enumerate(parts):
        if part in {PLUGIN_FOLDER, "pod-resources", "plugins", "plugins_registry"}:
            return "/".join(parts[:place])
    return path


def reads_kubelet(daemonset: "DaemonSet") -> Reading[bool]:
    """Return whether a DaemonSet reaches the kubelet by a hostPath."""
    return attempt(lambda: bool(kubelet_paths(need(daemonset.object).spec.template.spec)))
