"""MPS on one node: whether the control daemon that shares its GPUs runs, and why it does not.

Judges nothing. Source: k8s-device-plugin 0.15 to 0.20, cmd/mps-control-daemon, internal/plugin/mps.go, and the chart's
daemonset-mps-control-daemon.yml: a daemon that cannot start MPS tries again every 30 s, and its pod stays Ready.
"""

import re
from typing import TYPE_CHECKING, Final

from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.pluginlog import LOST, brief, complaint
from kube_gpucheck.evidence.podspec import main_container
from kube_gpucheck.evidence.podstate import is_running, live_pods_on, troubles
from kube_gpucheck.evidence.readings import derived, need
from kube_gpucheck.evidence.stack import Component
from kube_gpucheck.model import Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.node import Node
    from kube_gpucheck.evidence.pod import Pod

_BEGINS: Final = re.compile(r"Starting Daemons\.|Starting NVIDIA MPS Control Daemon")
_UNSHARED: Final = re.compile(
    r"No devices are configured for MPS sharing; Waiting indefinitely|Sharing strategy is not MPS; skipping"
)
_REFUSES_MIG: Final = re.compile(r"MPS sharing is not supported for MIG devices")
_FAILED: Final = re.compile(r"Failed to start MPS (?:daemon|deamon)|error starting plugins|^panic:", re.MULTILINE)
_MAX_LINE: Final = 4_000


class MpsDaemon:
    """The MPS control daemon on one node."""

    def __init__(self, node: "Node") -> None:
        """Keep the node."""
        self.node = node

    @derived
    def is_wanted(self) -> bool:
        """Whether the device plugin's configuration shares GPUs by MPS."""
        plugin = self.node.plugin
        if not need(plugin.pods) or need(plugin.is_provider):
            return False
        return need(plugin.config).sharing.strategy == "mps"

    @derived
    def pods(self) -> "tuple[Pod, ...]":
        """The daemon's pods on the node; none that has ended or is being deleted."""
        return live_pods_on(self.node, Component.MPS_CONTROL_DAEMON)

    @derived
    def absence(self) -> str | None:
        """Why no pod of the daemon is on the node, in a reader's words; None if there is one."""
        if need(self.pods):
            return None
        installed = self.node.cluster.stack.of(Component.MPS_CONTROL_DAEMON)
        if not installed:
            return "no DaemonSet of the MPS control daemon is installed"
        for one in installed:
            why = need(one.rejection(self.node))
            if why is not None:
                return f"{one.subject} needs {why.wanted}; {self.node.name} has {why.found}"
        return f"{installed[0].subject} has no pod on {self.node.name}"

    @derived
    def failure(self) -> str | None:
        """Why the daemon on the node does not serve, in a reader's words; None if nothing says that it does not.

        A log that nobody asked for says nothing.
        """
        for pod in need(self.pods):
            name = f"{pod.namespace}/{pod.name}"
            if not need(is_running(pod)):
                told = troubles(pod)
                words = "; ".join(told.value[:2]) if isinstance(told, Seen) else ""
                return f"{name} does not run{f': {words}' if words else ''}"
            log = pod.log(main_container(need(pod.object).spec).name)
            if is_not_asked(log):
                continue
            said = _said(need(log))
            if said is not None:
                return f"the log of {name}: {said}"
        return None

    @derived
    def partitioned(self) -> tuple[str, ...]:
        """The GPUs that have MIG on, which MPS cannot share; none where NVML was not asked."""
        layouts = self.node.partitions.layouts
        if is_not_asked(layouts) or need(self.node.partitions.unlisted) is not None:
            return ()
        return tuple(one.gpu for one in need(layouts) if one.is_on)


def _said(text: str) -> str | None:
    """Return why the daemon does not serve, by its log since its last start; None if it does not complain."""
    head = text[:_MAX_LINE].lstrip()
    if LOST.match(head):
        return brief(head)
    starts = [found.start() for found in _BEGINS.finditer(text)]
    last = text[starts[-1] if starts else 0 :]
    if _UNSHARED.search(last):
        return "it shares nothing: its own configuration does not ask for MPS"
    if _REFUSES_MIG.search(last):
        return "it does not share MIG devices"
    return complaint(last) if _FAILED.search(last) else None
