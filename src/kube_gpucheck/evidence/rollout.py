"""How a DaemonSet fares: which GPU nodes it leaves out, which of its pods are not well, and in whose words.

Explains, never judges: what a person wanted is the check's business. The words of a log or event are read
only for pods that are not well; that they cannot be had is said, and takes nothing from what was seen.
"""

import datetime
import enum
import re
from functools import cached_property
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.documents import ContainerStatus, EventDocument
from kube_gpucheck.evidence.pluginlog import MISLEADING
from kube_gpucheck.evidence.readings import derived, need
from kube_gpucheck.evidence.scheduling import Rejection
from kube_gpucheck.evidence.stack import kept_off
from kube_gpucheck.model import Missing, Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.daemonset import DaemonSet
    from kube_gpucheck.evidence.node import Node
    from kube_gpucheck.evidence.pod import Pod

RECENT: Final = datetime.timedelta(minutes=10)
"""A container that ended so shortly ago still restarts: the kubelet's back-off never exceeds five minutes.

Source: Kubernetes documentation, "Pod Lifecycle: container restart policy".
"""
OUT_OF_MEMORY: Final = "OOMKilled"
"""Kubernetes' reason for a container that the kernel killed for memory; such a one says nothing more."""
_LIMIT: Final = 240
_HEAD: Final = 80
_LONGEST: Final = 4000
_PREFIX: Final = re.compile(
    r"[IWEF][0-9]{4} [0-9:.]{8,20} +[0-9]+ [A-Za-z0-9_.-]+:[0-9]+\] ?"  # klog
    r"|[0-9]{4}[/-][0-9]{2}[/-][0-9]{2}[ T][0-9:.Z+-]+ "
)
_COMPLAINT: Final = re.compile(
    r"^[EF][0-9]{4} |level=(?:error|fatal|panic|ERROR|FATAL)|^panic:"
    r"|\b(?:[Ee]rror|ERROR|FATAL|[Ff]atal|[Ff]ailed|[Cc]annot|[Cc]ould not|denied|forbidden)\b"
)
_NOISE: Final = re.compile(r"^[IW][0-9]{4} |level=(?:info|debug|warn|warning|INFO|DEBUG|WARN)\b")
"""Lines that say themselves that they are no complaint."""


class Trouble(msgspec.Struct, frozen=True):
    """What is wrong with one pod.

    `state`: the container's state in a few words ("CrashLoopBackOff, 11 restarts, exit code 1"). `words`: what
    the component, the kubelet or the engine says of it, in one line; None if nobody says anything, `unheard`
    then says why where it is known. `reason`: the reason that Kubernetes gives (CrashLoopBackOff, OOMKilled, …).
    """

    pod: str
    node: str | None
    state: str
    reason: str
    words: str | None
    unheard: str | None = None

    def __str__(self) -> str:
        """Return one line for a reader."""
        where = f" on {self.node}" if self.node else ""
        said = f": '{brief(self.words)}'" if self.words else f" ({self.unheard})" if self.unheard else ""
        return f"pod {self.pod}{where}: {self.state}{said}"


class Plight(enum.Enum):
    """What is the matter with a DaemonSet, as far as Kubernetes, its log and its events tell; the first that holds."""

    LABEL = "a label excludes a GPU node"
    TAINT = "a taint excludes a GPU node"
    ELSEWHERE = "its template names another node"
    NOT_COUNTED = "the controller has not counted a node"
    NOT_CREATED = "pods cannot be created"
    IMAGE = "the image cannot be had"
    NO_HANDLER = "the engine has no such runtime handler"
    MISMATCH = "the driver's module and libraries differ"
    ABSENT_TYPE = "the NodeFeature type is not installed"
    REFUSED = "the API refuses a request"
    NO_DRIVER = "the container sees no driver"
    CREATE = "the container cannot be created"
    OUT_OF_MEMORY = "killed for memory"
    OTHER = "pods are not well"


_PLIGHTS: Final = (
    (
        Plight.NO_HANDLER,
        re.compile(r'no runtime for "|failed to find runtime handler|runtime handler .{1,80} not found'),
    ),
    (Plight.MISMATCH, re.compile(r"[Dd]river/library version mismatch|LIB_RM_VERSION_MISMATCH")),
    (Plight.ABSENT_TYPE, re.compile(r"could not find the requested resource|no matches for kind")),
    (Plight.REFUSED, re.compile(r"is forbidden|cannot (?:get|list|watch|create|update|patch|delete) resource")),
    (
        Plight.NO_DRIVER,
        re.compile(
            r"LIBRARY_NOT_FOUND|DRIVER_NOT_LOADED|could not load NVML|libnvidia-ml\.so|libdcgm|"
            r"[Ff]ailed to initialize NVML|Cannot init NVML|nvml init failed|unsupported strategy auto|"
            r"Incompatible (?:strategy|platform)|DCGM initialization error"
        ),
    ),
    (
        Plight.CREATE,
        re.compile(r"failed to create (?:containerd task|shim)|OCI runtime create|nvidia-container-cli|CDI device"),
    ),
)
"""What the words of a pod in trouble say, the most telling first."""
_IMAGE_REASONS: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)


class Shortfall(msgspec.Struct, frozen=True):
    """What a DaemonSet lacks: in one word for the check, in facts for the reader, and pod by pod."""

    plight: Plight
    facts: str
    troubles: tuple[Trouble, ...] = ()


class Rollout:
    """One DaemonSet against the GPU nodes of its cluster."""

    def __init__(self, daemonset: "DaemonSet") -> None:
        """Keep the DaemonSet."""
        self.daemonset = daemonset

    @derived
    def left_out(self) -> "tuple[tuple[Node, Rejection], ...]":
        """GPU nodes that no DaemonSet of this component may run on, and why not this one, in order of name.

        Nodes that somebody keeps free of operands on purpose are not among them, nor those that are only
        not Ready just now.
        """
        component = self.daemonset.component
        stack = self.daemonset.cluster.stack
        found: list[tuple[Node, Rejection]] = []
        for node in need(self.daemonset.cluster.gpu_nodes):
            why = need(self.daemonset.rejection(node, conditions=False))
            if why is None or component is None or not stack.exclusions(component, node, taints=True):
                continue
            if kept_off(need(node.labels), why.keys) is None:
                found.append((node, why))
        return tuple(found)

    @derived
    def wanted_on(self) -> "tuple[Node, ...]":
        """Nodes, with a GPU or without, on which its pods may run, in order of name."""
        nodes = need(self.daemonset.cluster.nodes)
        return tuple(node for node in nodes if need(self.daemonset.rejection(node, conditions=False)) is None)

    @derived
    def pods(self) -> "tuple[Pod, ...]":
        """Its pods, without those that are just being deleted, in order of name."""
        return tuple(one for one in need(self.daemonset.pods) if not need(one.is_leaving) or need(one.overdue))

    @derived
    def troubled(self) -> "tuple[Pod, ...]":
        """Its pods that are not Ready, restart again and again, or should be gone, in order of name."""
        return tuple(one for one in need(self.pods) if not need(one.is_ready) or need(one.overdue) or restarting(one))

    @derived
    def shortfall(self) -> Shortfall | None:
        """What it lacks of one well pod on each GPU node, None if nothing.

        GPU nodes that it may not run on, nodes that the controller has not counted, pods in trouble, pods
        that were not created.
        """
        status = need(self.daemonset.object).status
        wanted, ready = status.desired_number_scheduled, status.number_ready
        counts = f"{self.daemonset.subject} wants {_many(wanted)}, {ready} Ready"
        left_out = need(self.left_out)
        gpu_nodes = need(self.daemonset.cluster.gpu_nodes)
        if left_out:
            node, why = left_out[0]
            more = f", and {len(left_out) - 1} more" if len(left_out) > 1 else ""
            plight = Plight.LABEL if why.is_by_label else Plight.ELSEWHERE if why.rule == "nodeName" else Plight.TAINT
            facts = f"{counts}; left out {len(left_out)} of {len(gpu_nodes)} GPU nodes: {node.name}: {why}{more}"
            return Shortfall(plight, facts)
        welcome = [one for one in gpu_nodes if need(self.daemonset.rejection(one)) is None]
        if wanted < len(welcome):
            return Shortfall(Plight.NOT_COUNTED, f"{counts}; {len(welcome)} GPU nodes fit its selector and taints")
        troubles = tuple(trouble(one) for one in need(self.troubled))
        if troubles:
            more = f"; {_many(len(troubles) - 1)} more not well" if len(troubles) > 1 else ""
            return Shortfall(_plight(troubles[0]), f"{counts}; {troubles[0]}{more}", troubles)
        absent = wanted - len(need(self.pods))
        if absent > 0:
            said = self.creation_error
            return Shortfall(Plight.NOT_CREATED, f"{counts}; {absent} not created{f': {brief(said)}' if said else ''}")
        if ready < wanted:
            return Shortfall(Plight.OTHER, f"{counts}; each of its pods has the Ready condition")
        return None

    @derived
    def lacking_on(self) -> tuple[str, ...]:
        """The nodes on which it has no well pod and should: left out, in trouble, or not created; in order of name."""
        placed = {one.node_name for one in need(self.pods)}
        uncreated = (
            node.name
            for node in need(self.daemonset.cluster.gpu_nodes)
            if node.name not in placed and need(self.daemonset.rejection(node)) is None
        )
        troubled = (one.node_name for one in need(self.troubled) if one.node_name is not None)
        return tuple(sorted({*(node.name for node, _ in need(self.left_out)), *troubled, *uncreated}))

    @cached_property
    def creation_error(self) -> str | None:
        """Why its pods cannot be created, in the last FailedCreate event's words; None if there is none."""
        events = self.daemonset.events
        failed = () if isinstance(events, Missing) else [one for one in events.value if one.reason == "FailedCreate"]
        return one_line(failed[-1].message) if failed else None


def _many(pods: int) -> str:
    return f"{pods} pod{'' if pods == 1 else 's'}"


def _plight(one: Trouble) -> Plight:
    if one.reason in _IMAGE_REASONS:
        return Plight.IMAGE
    for plight, pattern in _PLIGHTS:
        if one.words and pattern.search(one.words):
            return plight
    return Plight.OUT_OF_MEMORY if one.reason == OUT_OF_MEMORY else Plight.OTHER


def restarting(pod: "Pod") -> bool:
    """Tell whether a container ended badly twice or more, the last time a short while ago.

    Raises:
        GapError: the pod's object is missing; call it inside a derivation.
    """
    if need(pod.restarts) < 2:  # noqa: PLR2004  twice or more
        return False
    now = pod.cluster.gathered_at
    for status in need(pod.statuses):
        ended = status.last_state.terminated
        if status.restart_count > 1 and ended is not None and ended.exit_code != 0:
            moment = ended.finished_at
            if moment is None or now - moment <= RECENT:
                return True
    return False


def trouble(pod: "Pod") -> Trouble:
    """Return what is wrong with a pod that is not well, in the words of whoever knows."""
    document = pod.object
    statuses = pod.statuses
    if isinstance(document, Missing) or isinstance(statuses, Missing):
        return Trouble(pod.name, pod.node_name, "its object is malformed", "", None)
    status = document.value.status
    leaving = lingering(pod)
    if leaving is not None:
        return Trouble(pod.name, pod.node_name, leaving, "Terminating", None)
    culprit = _culprit(statuses.value)
    if culprit is None:
        words = one_line(status.message) or next(
            (one_line(one.message) for one in status.conditions or () if one.status == "False" and one.message), None
        )
        return Trouble(
            pod.name,
            pod.node_name,
            status.reason or status.phase,
            status.reason or status.phase,
            words or _event_words(pod),
        )
    state, reason = _state(culprit)
    waiting, ended = culprit.state.waiting, culprit.state.terminated or culprit.last_state.terminated
    words, unheard = None, None
    if waiting is not None and waiting.reason != "CrashLoopBackOff":
        words = one_line(waiting.message)
    if words is None and ended is not None and reason != OUT_OF_MEMORY:
        words, unheard = _log_words(pod, culprit)
        words = words or one_line(ended.message)
    if words is None and ended is None:
        words, unheard = _event_words(pod), None
    name = f"{culprit.name} " if len(statuses.value) > 1 else ""
    return Trouble(pod.name, pod.node_name, f"{name}{state}", reason, words, None if words else unheard)


def lingering(pod: "Pod") -> str | None:
    """Say for how long a pod has been Terminating beyond its grace period, None if it has not."""
    overdue = pod.overdue
    if isinstance(overdue, Missing) or overdue.value is None:
        return None
    return f"Terminating, and should have been gone {overdue.value.total_seconds() / 60:.0f} min ago"


def last_complaint(text: str) -> str | None:
    """Return the last line of a log that complains, else its last line that says anything; None if it is empty."""
    last: str | None = None
    for line in reversed(text.splitlines()):
        stripped = line.strip()
        if not stripped:
            continue
        if _COMPLAINT.search(stripped) and not _NOISE.search(stripped) and not MISLEADING.search(stripped):
            return one_line(stripped)
        last = last or stripped
    return one_line(last) if last else None


def one_line(text: str) -> str | None:
    """Return a text in one line, without a log's prefix, of at most 4,000 characters; None if nothing is left."""
    line = " ".join(text[:_LONGEST].split())
    match = _PREFIX.match(line)
    return (line[match.end() :] if match else line) or None


def brief(text: str) -> str:
    """Return a text of at most 240 characters: of a long one its head and its end, where nested errors tell most."""
    return text if len(text) <= _LIMIT else f"{text[:_HEAD]} … {text[_HEAD + 3 - _LIMIT :]}"


def _culprit(statuses: tuple[ContainerStatus, ...]) -> ContainerStatus | None:
    """Return the container that keeps its pod from being well: the first that ended badly or waits, else not ready."""
    for one in statuses:
        ended = one.state.terminated
        if ended is not None and ended.exit_code != 0:
            return one
        if one.state.waiting is not None and one.state.waiting.reason != "PodInitializing":
            return one
    for one in statuses:
        if one.state.terminated is None and (not one.ready or one.restart_count > 1):
            return one
    return next((one for one in statuses if not one.ready), None)


def _state(status: ContainerStatus) -> tuple[str, str]:
    """Return a container's state in a few words, and Kubernetes' reason for it."""
    waiting, ended, running = status.state.waiting, status.state.terminated, status.state.running
    last = ended or status.last_state.terminated
    parts = []
    if waiting is not None:
        parts.append(waiting.reason or "waiting")
    elif ended is not None:
        parts.append(f"ended ({ended.reason})" if ended.reason else "ended")
    else:
        parts.append("running, not Ready" if running and not status.ready else "running again")
    if status.restart_count:
        parts.append(f"{status.restart_count} restart{'s' if status.restart_count > 1 else ''}")
    if last is not None:
        parts.append(f"exit code {last.exit_code}" + (f" ({last.reason})" if last.reason and last is not ended else ""))
    reason = last.reason if last is not None and last.reason == OUT_OF_MEMORY else ""
    reason = reason or (waiting.reason if waiting else "") or (last.reason if last else "")
    return ", ".join(parts), reason


def _log_words(pod: "Pod", status: ContainerStatus) -> tuple[str | None, str | None]:
    """Return the last complaint of a container's log, of the run that ended; else why it could not be read."""
    previous = status.state.running is not None
    first = pod.log(status.name, previous=previous)
    if isinstance(first, Seen):
        words = last_complaint(first.value)
        if words is not None:
            return words, None
    second = pod.log(status.name, previous=not previous)
    if isinstance(second, Seen):
        words = last_complaint(second.value)
        if words is not None:
            return words, None
    return None, (f"its log: {first.reason}" if isinstance(first, Missing) else "its log is empty")


def _event_words(pod: "Pod") -> str | None:
    """Return what the last warning event about a pod says."""
    events = pod.events
    if isinstance(events, Missing):
        return None
    return next((one_line(one.message) for one in reversed(events.value) if _is_warning(one)), None)


def _is_warning(event: EventDocument) -> bool:
    return event.type == "Warning" and event.reason != "BackOff"
