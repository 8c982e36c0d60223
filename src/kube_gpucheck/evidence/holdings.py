"""What the pods of a node hold of its GPUs, by the API, beside what the kubelet's record says that it gave them.

The kubelet clears its record of a pod that has ended only when it gives devices to the next one, or is asked for them:
an entry of such a pod alone is no fault. Source: pkg/kubelet/cm/devicemanager/manager.go, UpdateAllocatedDevices.
"""

import datetime
import re
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.allocation import KUBELET_SOCKET, NVIDIA_DOMAIN, Allocation, nvidia_resources
from kube_gpucheck.evidence.modules import moment
from kube_gpucheck.evidence.podspec import main_container
from kube_gpucheck.evidence.readings import derived, need
from kube_gpucheck.model import Missing, MissingKind, Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.node import Node
    from kube_gpucheck.evidence.pod import Pod

_STATIC: Final = "kubernetes.io/config.hash"
"""The annotation of a static pod's mirror in which the kubelet's own id of it stands."""
_REFUSED: Final = re.compile(r"requested number of devices unavailable for (nvidia\.com/\S{1,100}?)[.:,] ?Requested:")
_KLOG_TIME: Final = re.compile(r"(\d\d)(\d\d) (\d\d):(\d\d):(\d\d)")
_DATED: Final = re.compile(r"(\d{4})/(\d\d)/(\d\d) (\d\d):(\d\d):(\d\d)")
_PLUGINS: Final = re.compile(r"nvidia\.com/(?:gpu(?:\.shared)?|mig-[0-9a-z.+-]+)")
"""What NVIDIA's device plugin calls its resources unless told otherwise."""
_CLEARED_S: Final = 60
"""How much later a pod must have started for the kubelet to have cleared what ended before it: clocks and order."""


class Started(msgspec.Struct, frozen=True):
    """A container that runs and asks for so many of a GPU resource. `at`: since when it runs."""

    pod: str
    uid: str
    container: str
    resource: str
    count: int
    at: datetime.datetime


class Excess(msgspec.Struct, frozen=True):
    """A resource of which pods hold more than is allocatable. `holders`: who, in order of namespace and name."""

    resource: str
    held: int
    allocatable: int
    holders: tuple[str, ...]


class Holdings:
    """Who holds what on one node."""

    def __init__(self, node: "Node") -> None:
        """Keep the node."""
        self.node = node

    @derived
    def started(self) -> tuple[Started, ...]:
        """The running containers that ask for GPU resources, with their start; those of pods that wait to go too."""
        found = []
        for pod in need(self.node.pods):
            if need(pod.is_finished) or not need(pod.gpu_request):
                continue
            document = need(pod.object)
            uid = (document.metadata.annotations or {}).get(_STATIC, document.metadata.uid)
            wants = {
                one.name: {**(one.resources.requests or {}), **(one.resources.limits or {})}
                for one in need(pod.containers)
            }
            for status in need(pod.statuses):
                at = status.state.running.started_at if status.state.running is not None else None
                if at is None:
                    continue
                for name, count in nvidia_resources(wants.get(status.name, {})).items():
                    if count:
                        found.append(Started(f"{pod.namespace}/{pod.name}", uid, status.name, name, count, at))
        return tuple(found)

    @derived
    def registered_at(self) -> datetime.datetime | None:
        """When the device plugin registered last, None where no plugin runs or nothing dates it.

        Source: the last "Registered device plugin" of its log (it registers anew when the kubelet restarts), else the
        start of its container.
        """
        moments = []
        for pod in need(self.node.plugin.pods):
            main = main_container(need(pod.object).spec).name
            running = [one.state.running for one in need(pod.statuses) if one.name == main]
            moments += [one.started_at for one in running if one is not None and one.started_at is not None]
            log = self.node.plugin.log(pod)
            if isinstance(log, Missing) and log.kind is MissingKind.NOT_ASKED:
                continue
            stamp = _moment(need(log).registered_when, self.node.cluster.gathered_at)
            if stamp is not None:
                moments.append(stamp)
        return max(moments, default=None)

    @derived
    def kubelet_started_at(self) -> datetime.datetime:
        """When the kubelet started, at the latest that what was read allows.

        Source: the time of its socket, which it makes anew when it starts (a listing without seconds tells the minute),
        and the node's events "Starting"; missing where neither tells.
        """
        now = self.node.cluster.gathered_at
        moments = []
        for folder in self.node.kubelet.folders:
            listing = need(self.node.host.listing(folder))
            socket = listing.find(KUBELET_SOCKET) if listing is not None else None
            made = _listed(socket.modified, now) if socket is not None else None
            moments += [made] if made is not None else []
        events = self.node.cluster.events("Node", "", self.node.name)
        asked = isinstance(events, Seen) or events.kind is not MissingKind.NOT_ASKED
        for event in need(events) if asked else ():
            moments += [event.last_seen] if event.reason == "Starting" and event.last_seen is not None else []
        if not moments:
            reason = f"nothing that was read tells when the kubelet of {self.node.name} started"
            need(Missing(MissingKind.NOT_ASKED, reason, f"nodes/{self.node.name}/host.json", "--probe"))
        return max(moments)

    @derived
    def early(self) -> tuple[Started, ...]:
        """The containers with GPUs that this kubelet started before the plugin registered with it.

        One that is older than the kubelet was started by the one before it, and keeps what it was given.
        """
        last = need(self.registered_at)
        older = [one for one in need(self.started) if last is not None and one.at < last]
        return tuple(one for one in older if one.at >= need(self.kubelet_started_at))

    @derived
    def empty_handed(self) -> tuple[Started, ...]:
        """Those of them that the kubelet's record gives no device, while it shows as many free as they ask for.

        Without free ones the record may only be older than the pods. What was started after the host was read is left
        out.
        """
        early = need(self.early)
        if not early:
            return ()
        record = need(self.node.kubelet.checkpoint)
        if record is None:
            return ()
        given = {(one.pod_uid, one.container, one.resource) for one in record.allocations if one.devices}
        taken = {device for one in record.allocations for device in one.devices}
        free = {name: sum(one not in taken for one in devices) for name, devices in record.registered.items()}
        read_at = self.node.host.read_at
        return tuple(
            one
            for one in early
            if free.get(one.resource, 0) >= one.count
            and (one.uid, one.container, one.resource) not in given
            and one.at < read_at
        )

    @derived
    def excess(self) -> tuple[Excess, ...]:
        """The resources of which pods hold more than is allocatable, in order of name.

        Not those that no kubelet counts (`nvidia.com/gpumem` of HAMi): they are in no capacity, and no name of NVIDIA's
        plugin. Beside a plugin of another make, all names that the node does not offer are left to its own scheduler.
        """
        status = need(self.node.object).status
        allocatable = nvidia_resources(status.allocatable)
        others = bool(need(self.node.plugin.others))
        found = []
        for name, holders in sorted(need(self.node.kubelet.holders).items()):
            held = sum(count for _, count in holders)
            is_counted = name in status.capacity or (not others and _PLUGINS.fullmatch(name) is not None)
            if is_counted and held > allocatable.get(name, 0):
                who = tuple(f"{pod.namespace}/{pod.name} ({count})" for pod, count in holders)
                found.append(Excess(name, held, allocatable.get(name, 0), who))
        return tuple(found)

    @derived
    def overdue(self) -> "tuple[tuple[Pod, datetime.datetime], ...]":
        """The pods that hold GPUs and were to be gone, with when: deletionTimestamp has the grace period in it."""
        found = []
        for pod in need(self.node.pods):
            if need(pod.is_leaving) and not need(pod.is_finished) and need(pod.gpu_request):
                due = need(pod.object).metadata.deletion_timestamp
                if due is not None:
                    found.append((pod, due))
        return tuple(found)

    @derived
    def leaked(self) -> tuple[str, ...]:
        """What the kubelet's record still gives to pods that have ended or gone, though it had cause to clear it.

        It had where it gave devices of the same resource to a pod that started later, or refused a pod for want of
        them. Nothing where the record was not asked for.
        """
        record = self.node.kubelet.checkpoint
        if isinstance(record, Missing) and record.kind is MissingKind.NOT_ASKED:
            return ()
        held = need(record)
        mine = [one for one in held.allocations if one.resource.startswith(NVIDIA_DOMAIN)] if held else []
        if not mine:
            return ()
        pods = {need(pod.object).metadata.uid: pod for pod in need(self.node.pods)}
        static = {(need(pod.object).metadata.annotations or {}).get(_STATIC) for pod in pods.values()}
        refused = {name for pod in pods.values() if (name := _refused(pod)) is not None}
        found = []
        for one in mine:
            pod, was_needed = pods.get(one.pod_uid), one.resource in refused
            what = f"{', '.join(one.devices)} ({one.resource}) to"
            if pod is None and one.pod_uid not in static and was_needed:
                found.append(f"{what} a pod that is gone (uid {one.pod_uid})")
            elif pod is not None and need(pod.is_finished) and (was_needed or _was_passed(pod, one, mine, pods)):
                found.append(f"{what} {pod.namespace}/{pod.name}, which has ended")
        return tuple(found)


def _was_passed(pod: "Pod", entry: Allocation, entries: list[Allocation], pods: "dict[str, Pod]") -> bool:
    """Tell whether another pod was given devices of the same resource after this one had ended."""
    ended = [one.state.terminated.finished_at for one in need(pod.statuses) if one.state.terminated is not None]
    moments = [one for one in ended if one is not None]
    if not moments:
        return False
    later = max(moments) + datetime.timedelta(seconds=_CLEARED_S)
    others = (pods[one.pod_uid] for one in entries if one.resource == entry.resource and one.pod_uid in pods)
    starts = (need(other.object).status.start_time for other in others if other is not pod)
    return any(start is not None and start > later for start in starts)


def _refused(pod: "Pod") -> str | None:
    """Return the resource of which the kubelet said that no device was left when it refused a pod, None if it did not.

    Source: pkg/kubelet/cm/devicemanager/manager.go, devicesToAllocate.
    """
    outline = need(pod.outline)
    if outline.phase != "Failed" or not outline.gpu_request:
        return None
    said = _REFUSED.search(need(pod.object).status.message)
    return said[1] if said else None


def _listed(text: str | None, now: datetime.datetime) -> datetime.datetime | None:
    """Return the time of a file, of one that `ls` wrote (`Nov 24 00:14`, this year) the end of its minute."""
    told = moment(text)
    if told is not None or text is None:
        return told
    try:
        found = datetime.datetime.strptime(f"{now.year} {text}", "%Y %b %d %H:%M")  # noqa: DTZ007  made UTC below
    except ValueError:
        return None
    return found.replace(second=59, tzinfo=datetime.timezone.utc)


def _moment(stamp: str | None, now: datetime.datetime) -> datetime.datetime | None:
    """Return the moment of a log line's stamp in UTC; klog writes no year: the latest that is not in the future."""
    if stamp is None:
        return None
    dated, short = _DATED.search(stamp), _KLOG_TIME.search(stamp)
    try:
        if dated is not None:
            year, month, day, hour, minute, second = map(int, dated.groups())
            return datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.timezone.utc)
        if short is None:
            return None
        month, day, hour, minute, second = map(int, short.groups())
        found = datetime.datetime(now.year, month, day, hour, minute, second, tzinfo=datetime.timezone.utc)
        late = found > now + datetime.timedelta(days=1)
        return found.replace(year=now.year - 1) if late else found
    except ValueError:
        return None
