"""Who holds GPUs, and why a pod that asks for some is or is not placed: the kubelet's and the scheduler's side.

Evaluated of the scheduler: GPU resources, selector, node affinity, taints, cordons. Not evaluated: CPU and memory,
topology spread, pod affinity, volumes, quota of queues; where those decide, the scheduler's own words are kept.
"""

import enum
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kube_gpucheck.evidence.documents import PodDocument
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.quantity import whole
from kube_gpucheck.evidence.readings import attempt, derived, need
from kube_gpucheck.evidence.scheduling import reject
from kube_gpucheck.evidence.stack import PLUGIN_FOLDER
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.node import Node
    from kube_gpucheck.evidence.pod import Pod

NVIDIA_DOMAIN: Final = "nvidia.com/"
CHECKPOINT: Final = "kubelet_internal_checkpoint"
KUBELET_SOCKET: Final = "kubelet.sock"
CORDON_TAINT: Final = "node.kubernetes.io/unschedulable"


class Allocation(msgspec.Struct, frozen=True):
    """Devices that the kubelet has given to one container, by the pod's UID."""

    pod_uid: str
    container: str
    resource: str
    devices: tuple[str, ...]


class Checkpoint(msgspec.Struct, frozen=True):
    """The kubelet's record: devices that are registered now, by resource, and who was given which.

    A resource whose plugin has gone stays, with no device. Source: pkg/kubelet/cm/devicemanager/checkpoint.
    """

    registered: Mapping[str, tuple[str, ...]]
    allocations: tuple[Allocation, ...]


class _Entry(
    msgspec.Struct,
    frozen=True,
    rename={"pod_uid": "PodUID", "container": "ContainerName", "resource": "ResourceName", "devices": "DeviceIDs"},
):
    pod_uid: str
    container: str
    resource: str
    devices: Mapping[str, tuple[str, ...] | None] | tuple[str, ...] | None = None


class _Data(msgspec.Struct, frozen=True, rename={"entries": "PodDeviceEntries", "registered": "RegisteredDevices"}):
    entries: tuple[_Entry, ...] | None = None
    registered: Mapping[str, tuple[str, ...] | None] | None = None


class _File(msgspec.Struct, frozen=True, rename={"data": "Data"}):
    data: _Data


def parse_checkpoint(text: str) -> Checkpoint:
    """Return what the kubelet's checkpoint file says; device ids stand by NUMA node, or in one list (before 1.20).

    Raises:
        msgspec.MsgspecError: it is not such a file, or it is cut off.
    """
    data = msgspec.json.decode(text.encode("utf-8", "replace"), type=_File).data
    entries = tuple(
        Allocation(one.pod_uid, one.container, one.resource, _devices(one.devices)) for one in data.entries or ()
    )
    return Checkpoint({name: tuple(ids or ()) for name, ids in (data.registered or {}).items()}, entries)


def _devices(value: Mapping[str, tuple[str, ...] | None] | tuple[str, ...] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, Mapping):
        return tuple(device for ids in value.values() for device in ids or ())
    return value


class Kubelet:
    """The kubelet's device manager on one node: its root, its checkpoint, and who holds what."""

    def __init__(self, node: "Node") -> None:
        """Keep the node."""
        self.node = node

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders called `device-plugins` that were looked into on the host."""
        return tuple(
            key.removeprefix("list:")
            for key in self.node.host.keys("list:")
            if posixpath.basename(key) == PLUGIN_FOLDER
        )

    @derived
    def root(self) -> str | None:
        """The kubelet's root: the folder above the `device-plugins` that holds `kubelet.sock`, None if none does.

        Missing where no such folder was listed on the host. Source: pkg/kubelet/cm/devicemanager (`--root-dir`).
        """
        if not self.folders:
            need(_not_listed(self.node.name))
        for folder in self.folders:
            listing = need(self.node.host.listing(folder))
            if listing is not None and listing.find(KUBELET_SOCKET) is not None:
                return posixpath.dirname(folder)
            if listing is not None and not listing.tells_of(KUBELET_SOCKET):
                source = f"nodes/{self.node.name}/host.json#list:{folder}"
                reason = f"the listing of {folder} on {self.node.name} holds only '{listing.filtered}'"
                need(Missing(MissingKind.ERROR, reason, source))
        return None

    @property
    def has_checkpoint(self) -> bool:
        """Whether the kubelet's checkpoint was asked for."""
        return bool(self._checkpoint_keys)

    @property
    def _checkpoint_keys(self) -> tuple[str, ...]:
        return tuple(key for key in self.node.host.keys("file:") if posixpath.basename(key) == CHECKPOINT)

    @derived
    def checkpoint(self) -> Checkpoint | None:
        """The kubelet's record of devices, None if there is no such file."""
        keys = self._checkpoint_keys
        if not keys:
            need(
                Missing(
                    MissingKind.NOT_ASKED,
                    f"'{CHECKPOINT}' was not read on {self.node.name}",
                    f"nodes/{self.node.name}/host.json",
                    "--probe",
                )
            )
        for key in keys:
            text = need(self.node.host.file(key.removeprefix("file:")))
            if text is not None:
                try:
                    return parse_checkpoint(text)
                except (msgspec.MsgspecError, RecursionError) as error:
                    source = f"nodes/{self.node.name}/host.json#{key}"
                    need(Missing(MissingKind.UNPARSABLE, f"{source}: {error}", source))
        return None

    @derived
    def holders(self) -> "dict[str, tuple[tuple[Pod, int], ...]]":
        """The pods on the node that hold GPU resources, with how many, by resource; finished ones hold none."""
        found: dict[str, list[tuple[Pod, int]]] = {}
        for pod in need(self.node.pods):
            if not need(pod.is_finished):
                for name, count in need(pod.gpu_request).items():
                    found.setdefault(name, []).append((pod, count))
        return {name: tuple(pods) for name, pods in found.items()}


def _not_listed(node: str) -> Reading[None]:
    return Missing(
        MissingKind.NOT_ASKED, f"the kubelet's folder was not listed on {node}", f"nodes/{node}/host.json", "--probe"
    )


class Fit(enum.Enum):
    """How a node stands to a pod that waits for GPUs."""

    NOT_OFFERED = "does not offer the resource"
    TOO_SMALL = "has too few even when idle"
    OUT_OF_SERVICE = "has enough in capacity, and too few allocatable"
    EXCLUDED = "is excluded by the pod's or the node's rules"
    CORDONED = "is cordoned"
    IN_USE = "has too few free"
    FREE = "has them free"


class Placement(msgspec.Struct, frozen=True):
    """How one node stands to one pod. `reason`: in a reader's words. `keys`: label or taint keys meant.

    `rule`: the rule that excludes, of `scheduling.Rejection`, else empty. `holders`: who holds what the pod waits for.
    """

    node: str
    fit: Fit
    reason: str
    rule: str = ""
    keys: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()


def placement(pod: "Pod", node: "Node") -> Reading[Placement]:
    """Return how a node stands to a pod."""
    return attempt(lambda: _placement(pod, node))


def nvidia_resources(quantities: Mapping[str, Any]) -> dict[str, int]:
    """Return the quantities in the NVIDIA domain, as counts (0 stays), under whatever name they go."""
    return {name: whole(value) for name, value in quantities.items() if name.startswith(NVIDIA_DOMAIN)}


def _placement(pod: "Pod", node: "Node") -> Placement:
    request = need(counted_request(pod))
    by_dra = {name: offer for name in request if (offer := _by_dra(node, name)) is not None}
    lacking = next((one for name, count in request.items() if (one := _lacking(node, name, count, by_dra))), None)
    if lacking is not None:
        return lacking
    spec = need(pod.object).spec
    rejection = reject(spec, node, tolerations=spec.tolerations or ())
    if rejection is not None and rejection.keys != (CORDON_TAINT,):
        return Placement(node.name, Fit.EXCLUDED, f"{node.name}: {rejection}", rejection.rule, rejection.keys)
    if rejection is not None or need(node.object).spec.unschedulable:
        return Placement(node.name, Fit.CORDONED, f"{node.name} is cordoned", "unschedulable", (CORDON_TAINT,))
    busy = next((one for name, count in request.items() if (one := _in_use(node, name, count, by_dra))), None)
    if busy is not None:
        return busy
    return Placement(
        node.name, Fit.FREE, f"{node.name} has {', '.join(f'{count} {name}' for name, count in request.items())} free"
    )


def counted_request(pod: "Pod") -> Reading[dict[str, int]]:
    """Return the GPU resources of a pod that nodes must offer.

    Where a device plugin of another make is installed, names that no node serves are left to its own scheduler, as
    HAMi's nvidia.com/gpumem. Source: HAMi, charts/hami/values.yaml; kube-scheduler, `ignoredByScheduler`.
    """

    def derive() -> dict[str, int]:
        request = need(pod.gpu_request)
        offers = pod.cluster.offers
        odd = {name for name in request if not _USUAL.fullmatch(name) and not need(offers.is_served(name))}
        if not odd or not need(pod.cluster.stack.other_plugins):
            return request
        return {name: count for name, count in request.items() if name not in odd}

    return attempt(derive)


def _by_dra(node: "Node", name: str) -> tuple[int, int] | None:
    """Return how many devices stand behind a resource that a node's capacity does not name, and how many are free."""
    if nvidia_resources(need(node.object).status.capacity).get(name):
        return None
    return need(node.cluster.dra.offers(name)).get(node.name)


def _lacking(node: "Node", name: str, count: int, by_dra: Mapping[str, tuple[int, int]]) -> Placement | None:
    """Return in what a node is too small for a resource even when idle, None if it is not."""
    if name in by_dra:
        total = by_dra[name][0]
        return Placement(node.name, Fit.TOO_SMALL, f"{node.name} has {total} {name}, by DRA") if total < count else None
    status = need(node.object).status
    capacity = nvidia_resources(status.capacity).get(name)
    allocatable = nvidia_resources(status.allocatable).get(name, 0)
    if not capacity:
        return Placement(node.name, Fit.NOT_OFFERED, f"{node.name} has no {name}")
    if capacity < count:
        return Placement(node.name, Fit.TOO_SMALL, f"{node.name} has {capacity} {name}")
    if allocatable >= count:
        return None
    if not _serves(node, name) and (live := _live(node)):
        reason = f"{node.name} serves {', '.join(live)}, and its {name} is a leftover"
        return Placement(node.name, Fit.NOT_OFFERED, reason)
    reason = f"{node.name} has {capacity} {name} in capacity, {allocatable} allocatable"
    return Placement(node.name, Fit.OUT_OF_SERVICE, reason)


def _in_use(node: "Node", name: str, count: int, by_dra: Mapping[str, tuple[int, int]]) -> Placement | None:
    """Return who holds what a node has of a resource, None if enough of it is free."""
    if name in by_dra:
        total, free = by_dra[name]
        holders = need(node.cluster.dra.holders(node.name)) if free < count else ()
        who = tuple(dict.fromkeys(str(one) for one in holders))
    else:
        total = nvidia_resources(need(node.object).status.allocatable)[name]
        held = need(node.kubelet.holders).get(name, ())
        free = total - sum(number for _, number in held)
        who = tuple(f"{one.namespace}/{one.name} ({number})" for one, number in held)
    if free >= count:
        return None
    words = f"{node.name} has {max(free, 0)} of {total} {name} free{', by DRA' if name in by_dra else ''}"
    return Placement(node.name, Fit.IN_USE, words, holders=who)


class Wait(msgspec.Struct, frozen=True):
    """Why a pod that asks for GPUs is not scheduled: what each node says, and what the scheduler said.

    `message`: the scheduler's words, empty if it has not looked at the pod. `gates`: scheduling gates.
    """

    placements: tuple[Placement, ...]
    message: str = ""
    gates: tuple[str, ...] = ()

    def of(self, *fits: Fit) -> tuple[Placement, ...]:
        """Return the nodes that stand so."""
        return tuple(one for one in self.placements if one.fit in fits)


_SCALING: Final = re.compile(r"TriggeredScaleUp|Nominated")
"""Reasons of events of the cluster autoscaler and of Karpenter."""


def words_of_scheduler(pod: PodDocument) -> str:
    """Return why the scheduler has not placed a pod, in its own words; empty if it has, or has not looked at it."""
    conditions = pod.status.conditions or ()
    said = (one.message for one in conditions if one.type == "PodScheduled" and one.status == "False")
    return next(said, None) or ""


def wait_of(pod: "Pod") -> Reading[Wait]:
    """Return why a pod is not scheduled."""

    def derive() -> Wait:
        document = need(pod.object)
        return Wait(
            placements=need(pod.cluster.offers.placements(pod)),
            message=words_of_scheduler(document),
            gates=tuple(gate.name for gate in document.spec.scheduling_gates or ()),
        )

    return attempt(derive)


def scale_up(pod: "Pod") -> Reading[str | None]:
    """Return the words of an autoscaler that is adding a node for a pod, None if none is.

    Events that nobody asked for tell of none: an autoscaler's word only ever makes a finding milder.
    """
    events = pod.events
    if isinstance(events, Missing):
        return Seen(None) if events.kind is MissingKind.NOT_ASKED else events
    spoken = (event.message for event in events.value if _SCALING.fullmatch(event.reason))
    return Seen(next(spoken, None))


def _no_object(node: "Node") -> bool:
    """Tell whether this is a host that no Node object joins; pods are never placed there."""
    return isinstance(node.object, Missing) and node.object.kind is MissingKind.NOT_ASKED


_QUOTA_REFUSAL: Final = re.compile(
    r"exceeded quota: [^\n]{0,2000}nvidia\.com/|(?:maximum|minimum) nvidia\.com/\S{1,200} usage per"
)
_RECENT_S: Final = 1800
"""How long a refusal counts: controllers try again after at most about 17 minutes (their longest back-off)."""
_MAX_WORDS: Final = 400


def quota_refusals(cluster: "Cluster") -> Reading[tuple[str, ...]]:
    """Return what says that a quota or limit range refuses GPU pods, each with its object: late events, ReplicaSets.

    Events go after an hour; a ReplicaSet's condition ReplicaFailure stays while its pods cannot be created.
    """

    def derive() -> tuple[str, ...]:
        found: dict[str, str] = {}
        sets = cluster.objects("replicasets.apps")
        for one in () if is_not_asked(sets) else need(sets):
            for condition in one.status.conditions or ():
                failed = condition.type == "ReplicaFailure" and condition.status == "True"
                if failed and _QUOTA_REFUSAL.search(condition.message):
                    found[f"ReplicaSet {one.metadata.namespace}/{one.metadata.name}"] = condition.message
        events = cluster.objects("events")
        for event in () if found and isinstance(events, Missing) else need(events):  # what was seen stands
            seen = event.last_seen
            old = seen is not None and (cluster.gathered_at - seen).total_seconds() > _RECENT_S
            if event.reason == "FailedCreate" and not old and _QUOTA_REFUSAL.search(event.message):
                about = event.involved_object
                found[f"{about.kind} {about.namespace}/{about.name}"] = event.message
        return tuple(f"{about}: {message[:_MAX_WORDS]}" for about, message in found.items())

    return attempt(derive)


def gpu_limits(cluster: "Cluster") -> Reading[tuple[str, ...]]:
    """Return the quotas and limit ranges that leave no GPU to pods that ask for some, or that limit nothing.

    A quota on an extended resource works only as `requests.<resource>`. Source: Kubernetes, "Resource Quotas".
    """

    def derive() -> tuple[str, ...]:
        found = []
        for quota in need(cluster.objects("resourcequotas")):
            where = f"ResourceQuota {quota.metadata.namespace}/{quota.metadata.name}"
            for key, hard in (quota.spec.hard or {}).items():
                if key.startswith(NVIDIA_DOMAIN):
                    found.append(
                        f"{where} has the key '{key}', which limits nothing; the key that works is 'requests.{key}'"
                    )
                elif f".{NVIDIA_DOMAIN}" in key and whole(hard) == 0 and _wanted_in(cluster, quota.metadata.namespace):
                    found.append(f"{where} sets {key} to 0, and pods of this namespace ask for GPUs")
        ranges = cluster.objects("limitranges")
        for limits in () if found and isinstance(ranges, Missing) else need(ranges):  # a quota that was seen stands
            for item in limits.spec.limits:
                for key, most in nvidia_resources(item.max or {}).items():
                    if most == 0 and _wanted_in(cluster, limits.metadata.namespace):
                        found.append(
                            f"LimitRange {limits.metadata.namespace}/{limits.metadata.name} sets the maximum of {key} "
                            "to 0, and pods of this namespace ask for GPUs"
                        )
        return tuple(found)

    return attempt(derive)


def _wanted_in(cluster: "Cluster", namespace: str | None) -> bool:
    return any(pod.namespace == namespace and need(pod.gpu_request) for pod in need(cluster.readable_pods))


class Offers:
    """What the nodes of a cluster offer, worked out once for all pods that ask alike."""

    def __init__(self, cluster: "Cluster") -> None:
        """Keep the cluster."""
        self.cluster = cluster
        self._served: dict[str, Reading[bool]] = {}
        self._refusals: dict[str, Reading[str | None]] = {}
        self._placements: dict[bytes, Reading[tuple[Placement, ...]]] = {}

    @derived
    def nodes(self) -> "tuple[Node, ...]":
        """The nodes on which a pod may be placed: those of the API, in order of name."""
        return tuple(node for node in need(self.cluster.nodes) if not _no_object(node))

    def is_served(self, name: str) -> Reading[bool]:
        """Return whether some node serves a resource."""
        if name not in self._served:
            self._served[name] = attempt(
                lambda: (
                    any(_serves(node, name) for node in need(self.nodes)) or bool(need(self.cluster.dra.offers(name)))
                )
            )
        return self._served[name]

    def refusal(self, name: str) -> Reading[str | None]:
        """Return why every node that serves a resource refuses more than one of it, None if one does not."""
        if name not in self._refusals:
            self._refusals[name] = attempt(lambda: _refused_on(need(self.nodes), name))
        return self._refusals[name]

    def placements(self, pod: "Pod") -> Reading[tuple[Placement, ...]]:
        """Return how every node stands to a pod; the replicas of one workload are asked for once."""
        if isinstance(pod.object, Missing):
            return pod.object
        spec = pod.object.value.spec
        wants = (need(pod.gpu_request), spec.node_name, spec.node_selector, spec.affinity, spec.tolerations)
        key = msgspec.json.encode(wants)
        if key not in self._placements:
            self._placements[key] = attempt(lambda: tuple(_placement(pod, node) for node in need(self.nodes)))
        return self._placements[key]


class Unserved(msgspec.Struct, frozen=True):
    """A resource that a pod asks for and no node serves.

    `served`: what nodes serve instead, in a reader's words. `not_yet`: no node serves any GPU resource, and the name is
    a usual one, so it may only be missing with all the others.
    """

    resource: str
    served: str
    not_yet: bool = False


_USUAL: Final = re.compile(r"nvidia\.com/(?:gpu|gpu\.shared|mig-[0-9a-z.]+)")


def unserved_request(pod: "Pod") -> Reading[Unserved | None]:
    """Return the first resource that a pod asks for and no node serves, None if each is served somewhere.

    A resource with capacity and nothing allocatable is served where the plugin says so; else it is a leftover.
    """

    def derive() -> Unserved | None:
        for name in need(counted_request(pod)):
            if need(pod.cluster.offers.is_served(name)):
                continue
            nodes = need(pod.cluster.offers.nodes)
            offers = [f"{node.name} serves {', '.join(sorted(live))}" for node in nodes if (live := _live(node))]
            if offers:
                return Unserved(name, "; ".join(offers[:5]))
            return Unserved(name, "no node serves any GPU resource", not_yet=_USUAL.fullmatch(name) is not None)
        return None

    return attempt(derive)


def _live(node: "Node") -> tuple[str, ...]:
    return tuple(name for name, count in nvidia_resources(need(node.object).status.allocatable).items() if count)


def _serves(node: "Node", name: str) -> bool:
    status = need(node.object).status
    if not nvidia_resources(status.capacity).get(name):
        return False
    return bool(nvidia_resources(status.allocatable).get(name)) or name in need(node.plugin.serving).resources


def refused_request(pod: "Pod") -> Reading[str | None]:
    """Return why a plugin refuses a container of this pod for its number of shares, None if none does.

    Judged on the pod's node, or, while it has none, on every node that serves the resource: one that would take it is
    enough.
    """

    def derive() -> str | None:
        for container in need(pod.containers):
            asked = {
                **nvidia_resources(container.resources.requests or {}),
                **nvidia_resources(container.resources.limits or {}),
            }
            for name, count in asked.items():
                words = _refused(pod, name) if count > 1 else None
                if words is not None:
                    return f"container '{container.name}' asks for {count} {name}; {words}"
        return None

    return attempt(derive)


def _refused(pod: "Pod", name: str) -> str | None:
    if pod.node_name is None:
        return need(pod.cluster.offers.refusal(name))
    node = need(pod.cluster.nodes_by_name).get(pod.node_name)
    return None if node is None or _no_object(node) else _refused_on((node,), name)


def _refused_on(nodes: "Iterable[Node]", name: str) -> str | None:
    words = None
    for node in nodes:
        if not nvidia_resources(need(node.object).status.capacity).get(name):
            continue
        sharing = need(node.plugin.config).sharing
        if sharing.offering(name) is None or not sharing.refuses_above_one:
            return None
        words = f"on {node.name} at most 1 is allowed ({sharing})"
    return words
