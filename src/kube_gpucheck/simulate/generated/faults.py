"""What can be broken on a generated node, and everything that shows it.

Each kind is a class that changes healthy documents. Documents share parts, so a change replaces what
it changes. Texts are those of upstream at the versions that the stack has: the kubelet's events, the
device plugin 0.20, GFD 0.20.
"""

import datetime
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from kube_gpucheck.simulate.generated import nodes
from kube_gpucheck.simulate.generated.plan import DaemonSetRecipe, NodePlan, stamp, text, uid

Json = dict[str, Any]
GPU: Final = "nvidia.com/gpu"
_PCI_LABEL: Final = "feature.node.kubernetes.io/pci-10de.present"
PLUGIN: Final = "nvidia-device-plugin"
GFD: Final = "nvidia-device-plugin-gpu-feature-discovery"
EXPORTER: Final = "dcgm-exporter"
WORKER: Final = "node-feature-discovery-worker"
STACK: Final = frozenset({PLUGIN, GFD, EXPORTER, WORKER})
NEED_DRIVER: Final = frozenset({PLUGIN, GFD, EXPORTER})
_START_ERROR: Final = 128
_RUNTIME: Final = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: could not apply required "
    "modification to OCI specification: error modifying OCI spec: failed to create the automatic CDI modifier: failed "
    'to generate CDI spec for mode "auto": failed to construct device spec generators: '
)
"""What containerd and the NVIDIA runtime 1.18 say before the reason."""
_SINCE: Final = datetime.timedelta(minutes=25)
"""How long before the clock it broke, where nothing else says so."""


class Fault:
    """A healthy node; each kind overrides what it breaks.

    `cause`: what the catalogue calls it; None where the API's objects alone do not tell, or no entry has it.
    `check`: which finding then names the node.
    `cause_with_host`: the same where the nodes' own reads are there, None where those of a healthy node contradict it.
    """

    cause: ClassVar[str | None] = None
    check: ClassVar[str] = ""
    cause_with_host: ClassVar[str | None] = None

    def node(self, plan: NodePlan, node: Json) -> Json:  # noqa: ARG002  what a kind may need
        """Return the node's document."""
        return node

    def lease(self, plan: NodePlan, lease: Json) -> Json:  # noqa: ARG002
        """Return the node's lease."""
        return lease

    def wants(self, plan: NodePlan, recipe: DaemonSetRecipe) -> bool:  # noqa: ARG002
        """Return whether a DaemonSet wants a pod here, which it does on a healthy node."""
        return True

    def pod(self, plan: NodePlan, owner: str, pod: Json) -> Json:  # noqa: ARG002
        """Return a pod of the node; `owner` is its DaemonSet's name, or what the workload is."""
        return pod

    def events(self, plan: NodePlan, owner: str, pod: Json) -> Iterator[Json]:  # noqa: ARG002
        """Yield the events of a DaemonSet's pod; `owner` is the DaemonSet's name."""
        return iter(())

    def log(self, plan: NodePlan, owner: str) -> str | None:  # noqa: ARG002
        """Return the log of a DaemonSet's pod, None where no container of it was ever made."""
        return text(f"{owner}.log")

    def refusal(self, pod: Json) -> str:
        """Return what the kubelet answers who asks for a log that there is not."""
        name = pod["spec"]["containers"][0]["name"]
        return f'container "{name}" in pod "{pod["metadata"]["name"]}" is waiting to start: ContainerCreating'

    def ran_before(self, owner: str) -> bool:  # noqa: ARG002
        """Return whether its container was made more than once, so that there is a log of the one before."""
        return False

    def admits(self, recipe: DaemonSetRecipe) -> bool:  # noqa: ARG002
        """Return whether the node's taints let a new pod of the DaemonSet in."""
        return True

    def features(self, plan: NodePlan, owner: str, feature: Json) -> Json | None:  # noqa: ARG002
        """Return the NodeFeature that a DaemonSet's pod (NFD's worker, GFD) wrote, None where it wrote none."""
        return feature


class NotReady(Fault):
    """The kubelet went silent three minutes ago, too short for its pods to be evicted (300 s)."""

    cause = "node-not-ready"
    _SILENT: Final = datetime.timedelta(minutes=3)

    def node(self, plan: NodePlan, node: Json) -> Json:
        """Return it as the node lifecycle controller marks it: unknown, and tainted as unreachable."""
        since = stamp(plan.cluster.at - self._SILENT + datetime.timedelta(seconds=40))
        conditions = [
            one
            if one["type"] == "NetworkUnavailable"
            else {
                "lastHeartbeatTime": stamp(plan.cluster.at - self._SILENT),
                "lastTransitionTime": since,
                "message": "Kubelet stopped posting node status.",
                "reason": "NodeStatusUnknown",
                "status": "Unknown",
                "type": one["type"],
            }
            for one in node["status"]["conditions"]
        ]
        key = "node.kubernetes.io/unreachable"
        taints = [{"effect": effect, "key": key, "timeAdded": since} for effect in ("NoSchedule", "NoExecute")]
        return {
            **node,
            "spec": {**node["spec"], "taints": taints},
            "status": {**node["status"], "conditions": conditions},
        }

    def admits(self, recipe: DaemonSetRecipe) -> bool:
        """Return whether it tolerates everything.

        Its own tolerations name `unreachable` with NoExecute only, so that the taint with NoSchedule makes the pod
        misscheduled (kubernetes/kubernetes#132459).
        """
        return any(one.get("operator") == "Exists" and "key" not in one for one in recipe.tolerations)

    def lease(self, plan: NodePlan, lease: Json) -> Json:
        """Return it as last renewed before the silence."""
        renewed = f"{plan.cluster.at - self._SILENT:%Y-%m-%dT%H:%M:%S}.000000Z"
        return {**lease, "spec": {**lease["spec"], "renewTime": renewed}}

    def pod(self, plan: NodePlan, owner: str, pod: Json) -> Json:  # noqa: ARG002
        """Return it as the controller marks it: no longer ready."""
        since = plan.cluster.at - self._SILENT + datetime.timedelta(seconds=40)
        conditions = [
            {**one, "lastTransitionTime": stamp(since), "status": "False"} if one["type"] == "Ready" else one
            for one in pod["status"]["conditions"]
        ]
        return {**pod, "status": {**pod["status"], "conditions": conditions}}


class Cordoned(Fault):
    """Somebody ran `kubectl cordon`."""

    cause = cause_with_host = "node-cordoned"

    def node(self, plan: NodePlan, node: Json) -> Json:
        """Return it as unschedulable."""
        taint = {
            "effect": "NoSchedule",
            "key": "node.kubernetes.io/unschedulable",
            "timeAdded": stamp(plan.cluster.at - _SINCE),
        }
        return {**node, "spec": {**node["spec"], "taints": [taint], "unschedulable": True}}


class Tainted(Fault):
    """A team reserved the node by a taint that the GPU charts do not tolerate; their pods were evicted."""

    cause = cause_with_host = "gpu-stack-does-not-tolerate-node-taint"

    def node(self, plan: NodePlan, node: Json) -> Json:
        """Return it with the taint, and nothing that the plugin offers."""
        taint = {"effect": "NoExecute", "key": "example.com/reserved", "value": plan.team}
        return _offering({**node, "spec": {**node["spec"], "taints": [taint]}}, 0)

    def wants(self, plan: NodePlan, recipe: DaemonSetRecipe) -> bool:  # noqa: ARG002
        """Return whether its pods tolerate every taint, as those of the network and of NFD do."""
        return recipe.name not in NEED_DRIVER


class LabelMissing(Fault):
    """The NFD worker was told to look elsewhere: its label went a minute ago, and the DaemonSets' pods with it.

    The kubelet keeps the capacity of a plugin that is gone for five minutes (endpointStopGracePeriod in
    pkg/kubelet/cm/devicemanager/types.go), and lets nobody allocate it.
    """

    cause = cause_with_host = "nfd-label-missing"

    def node(self, plan: NodePlan, node: Json) -> Json:
        """Return it without the label of the PCI device and those of GFD."""
        gone = {_PCI_LABEL, *nodes.gfd_labels(plan)}
        metadata = node["metadata"]
        labels = {key: value for key, value in metadata["labels"].items() if key not in gone}
        return _offering({**node, "metadata": {**metadata, "labels": labels}}, plan.gpus, 0)

    def wants(self, plan: NodePlan, recipe: DaemonSetRecipe) -> bool:  # noqa: ARG002
        """Return whether it selects every node."""
        return recipe.nodes == "all"

    def features(self, plan: NodePlan, owner: str, feature: Json) -> Json | None:  # noqa: ARG002
        """Return the worker's without the device; GFD's went with its pod."""
        if owner != WORKER:
            return None
        spec = feature["spec"]
        labels = {key: value for key, value in spec["labels"].items() if key != _PCI_LABEL}
        return {**feature, "spec": {**spec, "labels": labels}}


class CapacityShort(Fault):
    """The plugin was restarted while a GPU did not answer, and offers the others."""

    check = "PLG-005"
    cause_with_host = "component-started-before-driver"

    def node(self, plan: NodePlan, node: Json) -> Json:
        """Return it with one GPU fewer than its label counts."""
        return _offering(node, plan.gpus - 1, plan.gpus - 1)


class GpuUnhealthy(Fault):
    """The plugin took a GPU away for an XID: the kubelet keeps its capacity and cannot allocate it."""

    cause = "device-marked-unhealthy-by-xid"
    xid: ClassVar[int] = 62

    def node(self, plan: NodePlan, node: Json) -> Json:
        """Return it with one GPU that cannot be allocated."""
        return _offering(node, plan.gpus, plan.gpus - 1)

    def log(self, plan: NodePlan, owner: str) -> str | None:
        """Return the plugin's log with what took the device."""
        found = super().log(plan, owner)
        if owner != PLUGIN or found is None:
            return found
        device = f"GPU-{plan.uid('gpu', 3)}"
        begin = f"I{plan.cluster.at - _SINCE:%m%d %H:%M:%S}.120011       1"
        return found + (
            f"{begin} health.go:171] Processing event {{Device:{{Handle:0x7f21cc1b3a62}} EventType:8 "
            f"EventData:{self.xid} GpuInstanceId:4294967295 ComputeInstanceId:4294967295}}\n"
            f"{begin} health.go:208] XidCriticalError: Xid={self.xid} on Device={device}; "
            "marking device as unhealthy.\n"
            f"{begin} server.go:273] '{GPU}' device marked unhealthy: {device}\n"
        )


class GpuLost(GpuUnhealthy):
    """A GPU fell off the bus."""

    cause = "gpu-fell-off-bus"
    xid = 79


class NotRunning(Fault):
    """Pods of the stack do not run; the kubelet took the resource away five minutes after the plugin went."""

    affected: ClassVar[frozenset[str]] = NEED_DRIVER
    reason: ClassVar[str] = "ContainerCreating"

    def node(self, plan: NodePlan, node: Json) -> Json:  # noqa: ARG002
        """Return it with nothing to offer."""
        return _offering(node, 0)

    def pod(self, plan: NodePlan, owner: str, pod: Json) -> Json:
        """Return a pod of the stack as one that waits."""
        return waiting(plan, pod, self.reason, self.message(plan, owner, pod)) if owner in self.affected else pod

    def message(self, plan: NodePlan, owner: str, pod: Json) -> str:  # noqa: ARG002
        """Return what the waiting container says, empty for nothing."""
        return ""

    def log(self, plan: NodePlan, owner: str) -> str | None:
        """Return no log of what never started."""
        return None if owner in self.affected else super().log(plan, owner)


class HandlerMissing(NotRunning):
    """The engine has no handler for the RuntimeClass, so no sandbox can be made."""

    check = "RTC-002"

    def node(self, plan: NodePlan, node: Json) -> Json:
        """Return it without the handler."""
        found = super().node(plan, node)
        return {**found, "status": {**found["status"], "runtimeHandlers": nodes.handlers(nvidia=False)}}

    def events(self, plan: NodePlan, owner: str, pod: Json) -> Iterator[Json]:
        """Yield what the kubelet says of the sandbox."""
        if owner in self.affected:
            yield event(
                plan,
                pod,
                "FailedCreatePodSandBox",
                "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: "
                'no runtime for "nvidia" is configured',
                count=118,
            )


class ImagePull(NotRunning):
    """The registry refuses the device plugin's image to this node; GFD, of the same image, waits as well."""

    cause = cause_with_host = "operand-image-cannot-be-pulled"
    affected = frozenset({PLUGIN, GFD})
    reason = "ImagePullBackOff"

    def message(self, plan: NodePlan, owner: str, pod: Json) -> str:  # noqa: ARG002
        """Return the kubelet's words."""
        image = pod["spec"]["containers"][0]["image"]
        return f'Back-off pulling image "{image}": ErrImagePull: {self._refused(image)}'

    def events(self, plan: NodePlan, owner: str, pod: Json) -> Iterator[Json]:
        """Yield what the kubelet says of the image."""
        if owner in self.affected:
            image = pod["spec"]["containers"][0]["image"]
            yield event(plan, pod, "Failed", f'Failed to pull image "{image}": {self._refused(image)}', count=6)
            yield event(plan, pod, "BackOff", f'Back-off pulling image "{image}"', count=97, kind="Normal")

    def refusal(self, pod: Json) -> str:
        """Return what the kubelet answers."""
        name = pod["spec"]["containers"][0]["name"]
        reason = "trying and failing to pull image"
        return f'container "{name}" in pod "{pod["metadata"]["name"]}" is waiting to start: {reason}'

    @staticmethod
    def _refused(image: str) -> str:
        head = image.partition("/")[0]
        return (
            f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": failed to do request: '
            f'Head "https://{head}/v2/": dial tcp: lookup {head}: no such host'
        )


class Crashing(NotRunning):
    """The runtime refuses to make the containers of the stack that need the driver."""

    reason = "CrashLoopBackOff"

    def log(self, plan: NodePlan, owner: str) -> str | None:
        """Return nothing said: the process never began."""
        return "" if owner in self.affected else super().log(plan, owner)

    def ran_before(self, owner: str) -> bool:
        """Return whether it is one that was made again and again."""
        return owner in self.affected

    def message(self, plan: NodePlan, owner: str, pod: Json) -> str:  # noqa: ARG002
        """Return the kubelet's words."""
        name, metadata = pod["spec"]["containers"][0]["name"], pod["metadata"]
        return (
            f"back-off 5m0s restarting failed container={name} "
            f"pod={metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        )

    def ending(self, plan: NodePlan, owner: str) -> str:
        """Return what the runtime answered."""
        raise NotImplementedError

    def pod(self, plan: NodePlan, owner: str, pod: Json) -> Json:
        """Return it with the container's last end."""
        found = super().pod(plan, owner, pod)
        if owner not in self.affected:
            return found
        at = stamp(plan.cluster.at - datetime.timedelta(minutes=2))
        (status,) = found["status"]["containerStatuses"]
        terminated = {
            "containerID": f"containerd://{plan.uid('ended', owner).replace('-', '') * 2}",
            "exitCode": _START_ERROR,
            "finishedAt": at,
            "message": self.ending(plan, owner),
            "reason": "StartError",
            "startedAt": "1970-01-01T00:00:00Z",
        }
        healthy = pod["status"]["containerStatuses"][0]
        crashed = {
            **status,
            "imageID": healthy["imageID"],
            "lastState": {"terminated": terminated},
            "restartCount": 9,
        }
        return {**found, "status": {**found["status"], "phase": "Running", "containerStatuses": [crashed]}}

    def events(self, plan: NodePlan, owner: str, pod: Json) -> Iterator[Json]:
        """Yield what the kubelet says of the restarts."""
        if owner in self.affected:
            name, metadata = pod["spec"]["containers"][0]["name"], pod["metadata"]
            whole = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
            yield event(plan, pod, "Failed", f"Error: {self.ending(plan, owner)}", count=9)
            yield event(plan, pod, "BackOff", f"Back-off restarting failed container {name} in pod {whole}", count=103)


class PluginCrash(Crashing):
    """The driver's libraries lie where nobody looks: libnvidia-ml is not found, and no container can be made."""

    cause = "driver-libraries-not-in-search-path"

    def ending(self, plan: NodePlan, owner: str) -> str:  # noqa: ARG002
        """Return what the runtime answered."""
        library = f"libnvidia-ml.so.{plan.machines.driver}"
        return (
            f"{_RUNTIME}failed to create driver library discoverer: failed to get libraries for driver version: "
            f"failed to locate {library}: pattern {library} not found: unknown"
        )


class DriverMismatch(Crashing):
    """The driver's libraries were upgraded under the loaded module: no container can be made with GPUs."""

    cause = "driver-library-version-mismatch"

    def ending(self, plan: NodePlan, owner: str) -> str:  # noqa: ARG002
        """Return what the runtime answered."""
        return f"{_RUNTIME}failed to initialize NVML: Driver/library version mismatch: unknown"


class VirtualNode(Fault):
    """A provider of virtual-kubelet stands in for the node: its pods are said to run."""

    check = "CLU-009"

    def node(self, plan: NodePlan, node: Json) -> Json:  # noqa: ARG002
        """Return it as virtual-kubelet registers a node."""
        metadata, status = node["metadata"], node["status"]
        info = {**status["nodeInfo"], "kubeletVersion": "v1.25.0-vk-azure-aci-1.6.2", "containerRuntimeVersion": ""}
        kept = {key: value for key, value in status.items() if key not in {"images", "runtimeHandlers"}}
        labels = dict(sorted({**metadata["labels"], "type": "virtual-kubelet"}.items()))
        return {
            **node,
            "metadata": {**metadata, "labels": labels},
            "status": {**kept, "nodeInfo": info},
        }

    def pod(self, plan: NodePlan, owner: str, pod: Json) -> Json:  # noqa: ARG002
        """Return it as running from no image."""
        statuses = [{**one, "imageID": ""} for one in pod["status"]["containerStatuses"]]
        return {**pod, "status": {**pod["status"], "containerStatuses": statuses}}


HEALTHY: Final = Fault()
FAULTS: Final[Mapping[str, Fault]] = {
    "capacity-short": CapacityShort(),
    "cordoned": Cordoned(),
    "driver-mismatch": DriverMismatch(),
    "gpu-lost": GpuLost(),
    "gpu-unhealthy": GpuUnhealthy(),
    "handler-missing": HandlerMissing(),
    "image-pull": ImagePull(),
    "label-missing": LabelMissing(),
    "not-ready": NotReady(),
    "plugin-crash": PluginCrash(),
    "tainted": Tainted(),
    "virtual-node": VirtualNode(),
}
"""The kinds by name, as a recipe and `--broken` give them."""


def _offering(node: Json, capacity: int, allocatable: int | None = None) -> Json:
    """Return the node with other numbers of GPUs; both alike where one is given."""
    status = node["status"]
    return {
        **node,
        "status": {
            **status,
            "capacity": {**status["capacity"], GPU: str(capacity)},
            "allocatable": {**status["allocatable"], GPU: str(capacity if allocatable is None else allocatable)},
        },
    }


def waiting(plan: NodePlan, pod: Json, reason: str, message: str) -> Json:
    """Return a pod whose containers wait, as the kubelet reports it."""
    status = pod["status"]
    since = stamp(plan.cluster.at - _SINCE)
    names = ", ".join(one["name"] for one in status["containerStatuses"])
    unready = {"reason": "ContainersNotReady", "message": f"containers with unready status: [{names}]"}
    away = {"Ready", "ContainersReady", *(("PodReadyToStartContainers",) if reason == "ContainerCreating" else ())}
    conditions = [
        {**one, "lastTransitionTime": since, "status": "False", **(unready if "Ready" in one["type"][-5:] else {})}
        if one["type"] in away
        else one
        for one in status["conditions"]
    ]
    state = {"waiting": {"message": message, "reason": reason} if message else {"reason": reason}}
    containers = [
        {
            **{key: value for key, value in one.items() if key != "containerID"},
            "imageID": "",
            "ready": False,
            "started": False,
            "state": state,
        }
        for one in status["containerStatuses"]
    ]
    return {**pod, "status": {**status, "conditions": conditions, "containerStatuses": containers, "phase": "Pending"}}


def event(plan: NodePlan, pod: Json, reason: str, message: str, *, count: int, kind: str = "Warning") -> Json:
    """Return an event of the kubelet about a pod."""
    metadata = pod["metadata"]
    identity = uid(metadata["uid"], reason, message)
    return {
        "apiVersion": "v1",
        "count": count,
        "eventTime": None,
        "firstTimestamp": stamp(plan.cluster.at - _SINCE),
        "involvedObject": {
            "apiVersion": "v1",
            "fieldPath": f"spec.containers{{{pod['spec']['containers'][0]['name']}}}",
            "kind": "Pod",
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "resourceVersion": metadata["resourceVersion"],
            "uid": metadata["uid"],
        },
        "kind": "Event",
        "lastTimestamp": stamp(plan.cluster.at - datetime.timedelta(seconds=45)),
        "message": message,
        "metadata": {
            "creationTimestamp": stamp(plan.cluster.at - _SINCE),
            "name": f"{metadata['name']}.{identity[:8]}{identity[9:13]}{identity[15:18]}",
            "namespace": metadata["namespace"],
            "resourceVersion": metadata["resourceVersion"],
            "uid": identity,
        },
        "reason": reason,
        "reportingComponent": "kubelet",
        "reportingInstance": plan.name,
        "source": {"component": "kubelet", "host": plan.name},
        "type": kind,
    }
