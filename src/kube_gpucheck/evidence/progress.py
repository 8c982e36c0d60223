"""What is under way in the GPU stack: what a later look may show differently, with nobody doing anything.

Says what moves, never whether that is good. Periods are upstream's, each with its source.
"""

import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.readings import derived, need
from kube_gpucheck.evidence.stack import Component, recognise
from kube_gpucheck.model import Layer, Seen, Subject

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.daemonset import DaemonSet
    from kube_gpucheck.evidence.node import Node
    from kube_gpucheck.evidence.pod import Pod

SETTLING: Final = datetime.timedelta(minutes=2)
"""How long something that just started may take to show: NFD's workers publish once in 60 s (`sleepInterval`), GFD
too (`--sleep-interval`), a kubelet reports its node's status within 10 s, and at least once in 5 minutes.

Source: node-feature-discovery, "Worker configuration reference"; gpu-feature-discovery's flags; Kubernetes
documentation, "Node Status: heartbeats".
"""
STARTING: Final = datetime.timedelta(minutes=10)
"""How long a container may be in creation or not ready: an image of some gigabytes is pulled."""
DRIVER_STARTING: Final = datetime.timedelta(minutes=25)
"""How long the operator's driver container may build: its startup probe allows 60 s and 120 times 10 s.

Source: gpu-operator, assets/state-driver/0500_daemonset.yaml.
"""
_IN_CREATION: Final = frozenset({"", "ContainerCreating", "PodInitializing"})


class Step(msgspec.Struct, frozen=True):
    """One thing that is under way.

    `heals_from`: the lowest layer in which it can change anything; faults below it stay what they are.
    """

    subject: Subject
    heals_from: Layer
    what: str

    def __str__(self) -> str:
        """Return one line for a reader."""
        return f"{self.subject.kind.value} {self.subject}: {self.what}"


_HEALS_FROM: Final = {
    Component.OPERATOR: Layer.CLUSTER,
    Component.DRIVER: Layer.DRIVER,
    Component.TOOLKIT: Layer.RUNTIME,
    Component.VALIDATOR: Layer.RUNTIME,
    Component.NFD_WORKER: Layer.DISCOVERY,
    Component.NFD_MASTER: Layer.DISCOVERY,
    Component.NFD_GC: Layer.DISCOVERY,
    Component.GFD: Layer.DISCOVERY,
    Component.DCGM: Layer.TELEMETRY,
    Component.DCGM_EXPORTER: Layer.TELEMETRY,
    Component.NODE_STATUS_EXPORTER: Layer.TELEMETRY,
}
"""Where each component acts; what is not listed offers devices. A workload's pod changes the workload alone."""


class Progress:
    """What is under way in one cluster."""

    def __init__(self, cluster: "Cluster") -> None:
        """Keep the cluster."""
        self._cluster = cluster

    @derived
    def steps(self) -> tuple[Step, ...]:
        """Everything that is under way, nodes first, then DaemonSets, then pods."""
        cluster = self._cluster
        return (
            *(step for node in need(cluster.gpu_nodes) for step in self._of_node(node)),
            *(step for one in need(cluster.stack.daemonsets) for step in self._of_daemonset(one)),
            *(step for pod in need(cluster.readable_pods) for step in self._of_pod(pod)),
        )

    def _age(self, moment: datetime.datetime | None) -> datetime.timedelta | None:
        return None if moment is None else self._cluster.gathered_at - moment

    def _within(self, moment: datetime.datetime | None, period: datetime.timedelta) -> bool:
        age = self._age(moment)
        return age is not None and age < period

    def _of_node(self, node: "Node") -> Iterator[Step]:
        if not isinstance(node.object, Seen):
            return
        document = node.object.value
        if self._within(document.metadata.creation_timestamp, SETTLING):
            yield Step(node.subject, Layer.DISCOVERY, "it joined the cluster a moment ago")
        for one in document.status.conditions or ():
            if one.type == "Ready" and one.status != "True" and self._within(one.last_transition_time, STARTING):
                yield Step(
                    node.subject,
                    Layer.CLUSTER,
                    f"it is not Ready since {_minutes(self._age(one.last_transition_time))}",
                )

    def _of_daemonset(self, daemonset: "DaemonSet") -> Iterator[Step]:
        if not isinstance(daemonset.object, Seen):
            return
        document = daemonset.object.value
        heals = _heals_from(daemonset.component)
        if self._within(document.metadata.creation_timestamp, SETTLING):
            yield Step(daemonset.subject, heals, "it was created a moment ago")
        elif document.metadata.generation > document.status.observed_generation:
            yield Step(daemonset.subject, heals, "its controller has not taken up the latest change")
        elif document.status.updated_number_scheduled < document.status.desired_number_scheduled:
            done = f"{document.status.updated_number_scheduled} of {document.status.desired_number_scheduled}"
            pods = daemonset.pods
            if any(self._starts(pod) for pod in (pods.value if isinstance(pods, Seen) else ())):
                yield Step(daemonset.subject, heals, f"{done} pods run the latest template")

    def _of_pod(self, pod: "Pod") -> Iterator[Step]:
        component = need(pod.component)
        if component is None and not need(pod.gpu_request):
            return
        document = need(pod.object)
        heals = _heals_from(component)
        if document.metadata.deletion_timestamp is not None and self._within(
            document.metadata.deletion_timestamp, SETTLING
        ):
            yield Step(pod.subject, heals, "it is being deleted")
        elif not need(pod.is_finished) and self._starts(pod):
            yield Step(pod.subject, heals, f"{_state(pod)} for {_minutes(self._age(_since(pod)))}")
        elif component is not None and self._within(_ready_since(pod), SETTLING):
            yield Step(pod.subject, heals, "it became Ready a moment ago, and what it publishes may take a minute")

    def _starts(self, pod: "Pod") -> bool:
        """Tell whether a pod that is not Ready is on its way: bound or just made, and in no back-off."""
        document = need(pod.object)
        if document.status.phase not in {"Pending", "Running"} or need(pod.is_ready):
            return False
        if document.spec.node_name is None:
            return self._within(document.metadata.creation_timestamp, SETTLING)
        if any(one.restart_count or one.state.terminated for one in document.status.container_statuses or ()):
            return False
        waiting = {one.state.waiting.reason for one in need(pod.statuses) if one.state.waiting is not None}
        driver = recognise(document.spec) is Component.DRIVER
        return waiting <= _IN_CREATION and self._within(_since(pod), DRIVER_STARTING if driver else STARTING)


def _heals_from(component: Component | None) -> Layer:
    return Layer.WORKLOAD if component is None else _HEALS_FROM.get(component, Layer.DEVICE_PLUGIN)


def _since(pod: "Pod") -> datetime.datetime | None:
    """Return when the kubelet took the pod up, else when it was created."""
    document = need(pod.object)
    return document.status.start_time or document.metadata.creation_timestamp


def _ready_since(pod: "Pod") -> datetime.datetime | None:
    conditions = need(pod.object).status.conditions or ()
    return next((one.last_transition_time for one in conditions if one.type == "Ready" and one.status == "True"), None)


def _state(pod: "Pod") -> str:
    """Say in a word what a pod that starts does."""
    document = need(pod.object)
    if document.spec.node_name is None:
        return "not scheduled yet"
    reasons = {one.state.waiting.reason for one in need(pod.statuses) if one.state.waiting is not None} - {""}
    return ", ".join(sorted(reasons)) or ("not Ready" if document.status.phase == "Running" else "starting")


def _minutes(age: datetime.timedelta | None) -> str:
    if age is None:
        return "an unknown time"
    seconds = max(0, int(age.total_seconds()))
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"  # noqa: PLR2004  two minutes read better in seconds
