"""One pod: what it asks for, where it is, how its containers fare."""

import datetime
from collections.abc import Callable
from sys import intern
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from kube_gpucheck.evidence.documents import Container, ContainerStatus, EventDocument, PodDocument, PodSpec
from kube_gpucheck.evidence.node import GPU_RESOURCE, Node
from kube_gpucheck.evidence.podspec import main_container
from kube_gpucheck.evidence.quantity import whole
from kube_gpucheck.evidence.readings import GapError, derived, need
from kube_gpucheck.evidence.stack import Component, recognise
from kube_gpucheck.evidence.workload import VISIBLE, environment, unasking_containers
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen, Subject, SubjectKind

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster


T = TypeVar("T")
_PATIENCE: Final = datetime.timedelta(minutes=2)
"""By so much a pod may outlast its grace period: the kubelet reports the end of containers within a minute or so."""


class PodOutline(msgspec.Struct, frozen=True, gc=False):
    """What is kept of every pod. The rest of its object is read again when it is looked at: most pods never are.

    `place`: where it stands in the list. `controllers`: UIDs of the owners that control it. `app`: its label of that
    name. `is_unasking`: a container asks for no GPU, and `names_devices`: such a one is given the variable
    NVIDIA_VISIBLE_DEVICES. `names_claims`: it names ResourceClaims. `running`: how many containers run, `nameless`: how
    many of them without an imageID. `is_even`: no container waits, or ended with a message; `is_silent`: none ended at
    all, every condition is True, and the status gives no reason. `began`: when the main container of a part of the GPU
    stack began. The other fields are those of `Pod`.
    """

    namespace: str
    name: str
    place: int
    node_name: str | None
    phase: str
    controllers: tuple[str, ...]
    component: Component | None
    gpu_request: dict[str, int]
    is_ready: bool
    is_leaving: bool
    is_even: bool
    is_silent: bool
    restarts: int
    running: int
    nameless: int
    runtime_class: str | None
    app: str | None
    is_unasking: bool
    names_devices: bool
    names_claims: bool
    began: datetime.datetime | None = None


def outline(document: PodDocument, place: int) -> PodOutline:
    """Return what is kept of a pod."""
    metadata, spec, status = document.metadata, document.spec, document.status
    statuses = (*(status.init_container_statuses or ()), *(status.container_statuses or ()))
    running = [one for one in statuses if one.state.running is not None]
    unasking = unasking_containers(spec)
    states = [state for one in statuses for state in (one.state, one.last_state)]
    component = recognise(spec)
    even = not any(one.waiting or (one.terminated and one.terminated.message) for one in states)
    return PodOutline(
        namespace=intern(metadata.namespace or "default"),
        name=metadata.name,
        place=place,
        node_name=_shared(spec.node_name),
        phase=intern(status.phase),
        controllers=tuple(intern(owner.uid) for owner in metadata.owner_references if owner.controller),
        component=component,
        gpu_request=_gpu_request(spec),
        is_ready=any(one.type == "Ready" and one.status == "True" for one in status.conditions or ()),
        is_leaving=metadata.deletion_timestamp is not None,
        is_even=even,
        is_silent=even
        and not any(one.terminated for one in states)
        and not (status.reason or status.message)
        and all(one.status == "True" for one in status.conditions or ()),
        restarts=sum(one.restart_count for one in statuses),
        running=len(running),
        nameless=sum(not one.image_id for one in running),
        runtime_class=_shared(spec.runtime_class_name),
        app=_shared((metadata.labels or {}).get("app")),
        is_unasking=bool(unasking),
        names_devices=any(environment(one, VISIBLE) is not None for one in unasking),
        names_claims=bool(spec.resource_claims),
        began=None if component is None else _began(document, main_container(spec).name),
    )


def _began(document: PodDocument, container: str) -> datetime.datetime | None:
    for one in document.status.container_statuses or ():
        if one.name == container and one.state.running is not None:
            return one.state.running.started_at
    return None


def _shared(word: str | None) -> str | None:
    return None if word is None else intern(word)


class Pod:
    """One pod."""

    def __init__(
        self, cluster: "Cluster", namespace: str, name: str, document: Reading[PodDocument] | Seen[PodOutline]
    ) -> None:
        """Keep the object, or its outline where the cluster can read the object again."""
        self.cluster = cluster
        self.namespace = namespace
        self.name = name
        self._subject: Subject | None = None
        self.outline: Reading[PodOutline]
        self._object: Reading[PodDocument] | None
        if isinstance(document, Missing):
            self.outline = self._object = document
        elif isinstance(document.value, PodOutline):
            self.outline, self._object = Seen(document.value), None
        else:
            self.outline, self._object = Seen(outline(document.value, 0)), Seen(document.value)

    @property
    def object(self) -> Reading[PodDocument]:
        """The object, read again from the list where it was let go."""
        if self._object is None:
            self._object = self.cluster.reread(self, need(self.outline).place)
        return self._object

    def let_go(self) -> None:
        """Forget the object and what hangs on it; the outline stays."""
        for name in ("containers", "statuses", "events"):
            vars(self).pop(name, None)
        self._object = None

    @property
    def is_known(self) -> bool:
        """Whether its object is well-formed."""
        return isinstance(self.outline, Seen)

    @property
    def subject(self) -> Subject:
        """The pod's name, with the node that it is bound to."""
        if self._subject is None:
            self._subject = Subject(SubjectKind.POD, self.name, namespace=self.namespace, node=self.node_name)
        return self._subject

    @property
    def node_name(self) -> str | None:
        """The node that it is bound to, None if it is not scheduled or its object is malformed."""
        return self.outline.value.node_name if isinstance(self.outline, Seen) else None

    @property
    def node(self) -> Node | None:
        """The node that it is bound to, None if it is not scheduled or the node is not in the evidence."""
        return self.cluster.node_of(self.node_name) if self.node_name else None

    @derived
    def containers(self) -> tuple[Container, ...]:
        """Init containers, then containers."""
        spec = need(self.object).spec
        return (*(spec.init_containers or ()), *spec.containers)

    @derived
    def statuses(self) -> tuple[ContainerStatus, ...]:
        """Statuses of init containers, then of containers; empty until the kubelet has seen the pod."""
        status = need(self.object).status
        return (*(status.init_container_statuses or ()), *(status.container_statuses or ()))

    @property
    def component(self) -> Reading[Component | None]:
        """What it is of the GPU stack by its first container that is any of it, None if it is none of it."""
        return self._told(lambda one: one.component)

    @property
    def runtime_class(self) -> Reading[str | None]:
        """The RuntimeClass that it names, None if it names none. Source: spec.runtimeClassName."""
        return self._told(lambda one: one.runtime_class)

    @property
    def gpu_request(self) -> Reading[dict[str, int]]:
        """GPU resources that it asks for: the sum over containers, or the largest init container if that is more.

        Extended resources have limits equal to requests; either spelling counts. Names are kept as
        written, misspelled ones in the NVIDIA domain too. Source: Kubernetes, "Init containers: resources".
        """
        return self._told(lambda one: one.gpu_request)

    @property
    def is_finished(self) -> Reading[bool]:
        """Whether it has ended, well or badly, so that it holds nothing any more."""
        return self._told(lambda one: one.phase in {"Succeeded", "Failed"})

    @property
    def is_leaving(self) -> Reading[bool]:
        """Whether it is being deleted."""
        return self._told(lambda one: one.is_leaving)

    @derived
    def overdue(self) -> datetime.timedelta | None:
        """How long its deletion should have ended ago, None if it is not being deleted or that is not odd yet.

        metadata.deletionTimestamp is when the grace period ends. Source: Kubernetes API reference, ObjectMeta.
        """
        if not need(self.is_leaving):
            return None
        due = need(self.object).metadata.deletion_timestamp
        since = None if due is None else self.cluster.gathered_at - due
        return since if since is not None and since > _PATIENCE else None

    @property
    def is_ready(self) -> Reading[bool]:
        """Whether its Ready condition is True."""
        return self._told(lambda one: one.is_ready)

    @property
    def restarts(self) -> Reading[int]:
        """Restarts of all its containers together."""
        return self._told(lambda one: one.restarts)

    def _told(self, pick: Callable[[PodOutline], T]) -> Reading[T]:
        known = self.outline
        return known if isinstance(known, Missing) else Seen(pick(known.value))

    @derived
    def reached_node(self) -> Node:
        """The node that it is bound to; missing where the evidence has no such node."""
        need(self.cluster.nodes)
        node = self.node
        if node is None:
            reason = f"pod '{self.namespace}/{self.name}': no node '{self.node_name}' in the evidence"
            raise GapError(Missing(MissingKind.ERROR, reason, "cluster/nodes.json"))
        return node

    @derived
    def events(self) -> tuple[EventDocument, ...]:
        """The events about it, oldest first."""
        return need(self.cluster.events("Pod", self.namespace, self.name))

    def log(self, container: str, *, previous: bool = False) -> Reading[str]:
        """Return a container's log, or that of its previous run."""
        return self.cluster.bundle.log(self.namespace, self.name, container, previous=previous)


def gpu_resources(container: Container) -> dict[str, int]:
    """Return what one container asks for in the NVIDIA domain, as counts."""
    asked: dict[str, int] = {}
    for source in (container.resources.requests, container.resources.limits):
        for name, quantity in (source or {}).items():
            if _is_gpu(name):
                asked[name] = whole(quantity)
    return asked


def _gpu_request(spec: PodSpec) -> dict[str, int]:
    total: dict[str, int] = {}
    for container in spec.containers:
        for name, count in gpu_resources(container).items():
            total[name] = total.get(name, 0) + count
    for container in spec.init_containers or ():
        for name, count in gpu_resources(container).items():
            total[name] = max(total.get(name, 0), count)
    return {intern(name): count for name, count in total.items() if count} or _NOTHING


def _is_gpu(name: str) -> bool:
    return name.startswith("nvidia.com/") or GPU_RESOURCE.fullmatch(name) is not None


_NOTHING: Final[dict[str, int]] = {}
"""What most pods ask for: one mapping for all of them, that nobody changes."""
