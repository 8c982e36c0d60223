"""What the collector itself must know of the workloads that pass: which logs and ConfigMaps to read besides.

Nothing is judged here: a pod that restarted is one whose log is worth its reading.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from kube_gpucheck.evidence.documents import Container
from kube_gpucheck.evidence.items import UNREADABLE, Item, OtherItem
from kube_gpucheck.evidence.names import is_name
from kube_gpucheck.evidence.stack import component_of

FEW_PODS: Final = 300
"""Up to so many pods, the logs of all of them are read; above, those of a sample of the healthy ones."""
SAMPLE: Final = 40
"""How many healthy pods of each part of the stack are read, spread evenly over their names."""
MOST_TROUBLED: Final = 600
"""The most pods in trouble whose logs are read, spread evenly likewise."""

_NAMED: Final = re.compile(r"nvidia|\bcdi\b", re.IGNORECASE)
_GPU: Final = "nvidia.com/"
_SIGN: Final = re.compile(rb"nvidia\.com/gpu\.present|pci-(?:03\d\d_)?10de")
"""Labels that tell of a GPU on the node, set by GFD and NFD."""
_STARTING: Final = frozenset({"ContainerCreating", "PodInitializing"})
_OTHER: Final = "other"


class _Owner(msgspec.Struct, frozen=True, gc=False):
    uid: str = ""
    controller: bool = False


class _State(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    reason: str = ""
    message: str = ""
    exit_code: int = 0


class _States(msgspec.Struct, frozen=True, gc=False):
    waiting: _State | None = None
    terminated: _State | None = None


class _ContainerStatus(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    name: str
    ready: bool = False
    restart_count: int = 0
    state: _States | None = None
    last_state: _States | None = None


class _Condition(msgspec.Struct, frozen=True, gc=False):
    message: str = ""


class _Status(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    phase: str = ""
    message: str = ""
    conditions: tuple[_Condition, ...] | None = None
    container_statuses: tuple[_ContainerStatus, ...] | None = None
    init_container_statuses: tuple[_ContainerStatus, ...] | None = None


class _Spec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    runtime_class_name: str = ""
    containers: tuple[Container, ...] = ()


class _Template(msgspec.Struct, frozen=True, gc=False):
    spec: _Spec = _Spec()


class _WorkloadSpec(msgspec.Struct, frozen=True, gc=False):
    template: _Template = _Template()


class _Kind(msgspec.Struct, frozen=True):
    """What the pods of one owner have in common. `component`: of the stack, "" if of none.

    `uses_gpu`: they ask for GPUs, or run under an NVIDIA handler.
    """

    component: str
    uses_gpu: bool


class _Log(msgspec.Struct, frozen=True, gc=False):
    """One pod's logs that may be worth reading."""

    namespace: str
    pod: str
    containers: tuple[str, ...]
    group: str
    is_troubled: bool
    node: str


class _NodeInfo(msgspec.Struct, frozen=True, gc=False):
    boot_id: str = msgspec.field(name="bootID", default="")


class _NodeStatus(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    node_info: _NodeInfo = _NodeInfo()
    capacity: dict[str, str] = {}
    allocatable: dict[str, str] = {}


class _Place(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    node_name: str = ""


_TEXT: Final = msgspec.json.Decoder(str)
_NODE: Final = msgspec.json.Decoder(_NodeStatus)
_OWNERS: Final = msgspec.json.Decoder(tuple[_Owner, ...])
_STATUS: Final = msgspec.json.Decoder(_Status)
_SPEC: Final = msgspec.json.Decoder(_Spec)
_PLACE: Final = msgspec.json.Decoder(_Place)
_WORKLOAD: Final = msgspec.json.Decoder(_WorkloadSpec)


class Survey:
    """Sees the workloads pass, and tells afterwards what else to read."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.namespaces: set[str] = set()
        """Those that hold a workload of the stack."""
        self.pod: tuple[str, str] | None = None
        """Namespace and name of the one pod whose logs are read in any case."""
        self.boot_id: str | None = None
        """Of a host that may be one of the nodes."""
        self.nodes: dict[str, bool] = {}
        """Every node by name, and whether it was started when that host was; none where there is no such host."""
        self._handlers: set[str] = set()
        self._odd_nodes: set[str] = set()
        self._by_owner: dict[str, _Kind] = {}
        self._pods: list[_Log] = []
        self._looks: Mapping[str, Callable[[Item], None]] = {
            "nodes": self._see_node,
            "pods": self._see_pod,
            "daemonsets.apps": self._see_workload,
            "deployments.apps": self._see_workload,
            "runtimeclasses.node.k8s.io": self._see_runtime_class,
        }

    def see(self, kind: str, item: Item) -> None:
        """Look at one object; a malformed one is passed by."""
        look = self._looks.get(kind)
        if look is not None:
            try:
                look(item)
            except (KeyError, *UNREADABLE):
                return

    def place_of(self, host: str) -> str:
        """Return the node that a host of that name is, else a name for it that no node has.

        A host is the one node that was started when it was. Of several (nodes in containers share their host's boot)
        it is the one of its name.
        """
        same = [name for name, started_with_it in self.nodes.items() if started_with_it]
        if host in same or len(same) == 1:
            return host if host in same else same[0]
        return f"this-host.{host}" if host in self.nodes else host

    def logs(self) -> tuple[str, ...]:
        """Return the logs to read: `<namespace>/<pod>/<container>[/previous]`, in order."""
        few = len(self._pods) <= FEW_PODS
        troubled = [one for one in self._pods if self._is_in_trouble(one)]
        chosen = troubled if few else _spread(troubled, MOST_TROUBLED)
        chosen += [one for one in self._pods if (one.namespace, one.pod) == self.pod]
        groups: dict[str, list[_Log]] = defaultdict(list)
        for one in self._pods:
            if not self._is_in_trouble(one):
                groups[one.group].append(one)
        for group in groups.values():
            chosen += group if few else _spread(group, SAMPLE)
        return tuple(sorted({f"{one.namespace}/{one.pod}/{name}" for one in chosen for name in one.containers}))

    def _is_in_trouble(self, pod: _Log) -> bool:
        """Tell whether a pod has not gone well, or something is odd on the node where one of the stack runs."""
        return pod.is_troubled or (pod.group != _OTHER and pod.node in self._odd_nodes)

    def _see_node(self, item: Item) -> None:
        name = _TEXT.decode(item.metadata["name"])
        if self.boot_id is not None:
            self.nodes[name] = False  # its status may be malformed
        status = _NODE.decode(_known(item.status))
        if self.boot_id is not None:
            self.nodes[name] = status.node_info.boot_id == self.boot_id
        gpus = {one: count for one, count in status.capacity.items() if one.startswith(_GPU)}
        is_labelled = _SIGN.search(bytes(item.metadata.get("labels", b""))) is not None
        if any(status.allocatable.get(one) != count for one, count in gpus.items()) or (is_labelled and not gpus):
            self._odd_nodes.add(name)

    def _see_runtime_class(self, item: Item) -> None:
        if isinstance(item, OtherItem) and b"nvidia" in bytes(item.members["handler"]):
            self._handlers.add(_TEXT.decode(item.metadata["name"]))

    def _see_workload(self, item: Item) -> None:
        template = _WORKLOAD.decode(_known(item.spec)).template.spec
        namespace = _TEXT.decode(item.metadata["namespace"])
        if self._kind_of(template).component:
            self.namespaces.add(namespace)

    def _see_pod(self, item: Item) -> None:
        owner = _owner(item)
        kind = self._by_owner.get(owner)
        if kind is None:
            kind = self._kind_of(_SPEC.decode(_known(item.spec)))
            if owner:
                self._by_owner[owner] = kind
        status = _STATUS.decode(_known(item.status))
        troubled = _is_troubled(status)
        namespace, name = _TEXT.decode(item.metadata["namespace"]), _TEXT.decode(item.metadata["name"])
        wanted = kind.component or kind.uses_gpu or (namespace, name) == self.pod
        if not wanted and not (troubled and _names_nvidia(status)):
            return
        if kind.component:
            self.namespaces.add(namespace)
        if is_name(namespace) and is_name(name):
            containers = tuple(one for one in _containers(status) if is_name(one.partition("/")[0]))
            node = _PLACE.decode(_known(item.spec)).node_name
            self._pods.append(_Log(namespace, name, containers, kind.component or _OTHER, troubled, node))

    def _kind_of(self, spec: _Spec) -> _Kind:
        component = next((found for found in map(component_of, spec.containers) if found is not None), None)
        handler = spec.runtime_class_name
        asked = (source for one in spec.containers for source in (one.resources.requests, one.resources.limits))
        return _Kind(
            component.value if component else "",
            "nvidia" in handler
            or handler in self._handlers
            or any(name.startswith(_GPU) for source in asked for name in source or {}),
        )


def _owner(item: Item) -> str:
    """Return the UID of a pod's controller, whose pods are alike; "" if it has none."""
    references = item.metadata.get("ownerReferences")
    if references is None:
        return ""
    return next((one.uid for one in _OWNERS.decode(references) if one.controller), "")


def _known(part: msgspec.Raw | msgspec.UnsetType) -> msgspec.Raw:
    return part if isinstance(part, msgspec.Raw) else msgspec.Raw(b"{}")


def _statuses(status: _Status) -> tuple[_ContainerStatus, ...]:
    return (*(status.init_container_statuses or ()), *(status.container_statuses or ()))


def _containers(status: _Status) -> Iterable[str]:
    """Yield the containers that have begun or are waiting, with `/previous` where one has run before."""
    for one in _statuses(status):
        yield one.name
        if one.restart_count or (one.last_state and one.last_state.terminated):
            yield f"{one.name}/previous"


def _is_troubled(status: _Status) -> bool:
    """Tell whether anything of a pod has not gone well so far."""
    if status.phase not in {"Running", "Succeeded"}:
        return True
    for one in _statuses(status):
        state = one.state or _States()
        ended = state.terminated
        if one.restart_count or (state.waiting and state.waiting.reason not in _STARTING):
            return True
        if ended.exit_code if ended else not one.ready:
            return True
    return False


def _names_nvidia(status: _Status) -> bool:
    """Tell whether what is said of a pod names NVIDIA or CDI."""
    said = [status.message, *(one.message for one in status.conditions or ())]
    for one in _statuses(status):
        for states in (one.state, one.last_state):
            said += [state.message for state in (states.waiting, states.terminated) if state] if states else []
    return any(_NAMED.search(message) for message in said if message)


def _spread(pods: "list[_Log]", most: int) -> "list[_Log]":
    """Return at most so many, spread evenly over their names: the same ones each time."""
    ordered = sorted(pods, key=lambda one: (one.namespace, one.pod))
    if len(ordered) <= most:
        return ordered
    return [ordered[place * len(ordered) // most] for place in range(most)]
