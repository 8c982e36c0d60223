"""What `kubectl get` shows of each kind: columns, and the cells of an object.

The server makes the cells, kubectl prints them. Source: k8s.io/kubernetes/pkg/printers/internalversion/printers.go,
k8s.io/apimachinery/pkg/util/duration and k8s.io/apiserver/pkg/registry/rest/table.go at 1.36, held to what kubectl
printed of the recorded clusters.
"""

import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from kube_gpucheck.simulate.fields import entries, moment, number, pairs, reach, text, texts

Cell = str | int | bool
Cells = list[Cell]


class Column(msgspec.Struct, frozen=True):
    """A column; one of priority 1 is shown by `-o wide` alone."""

    name: str
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0


class Printer(msgspec.Struct, frozen=True):
    """How objects of a kind are shown. `cells` is given the object and the time at which it is looked at."""

    columns: tuple[Column, ...]
    cells: Callable[[Mapping[str, Any], datetime.datetime], Cells]


def printer_of(kind: str) -> Printer:
    """Return the printer of a kind (`<plural>[.<group>]`); of a custom resource, its name and age."""
    return _PRINTERS.get(kind, _OTHERS)


# --- times -------------------------------------------------------------------------------------

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_YEAR: Final = 365 * _DAY


def human_duration(length: datetime.timedelta) -> str:
    """Return a length of time as kubectl shows ages, the coarser the longer: `82s`, `3m5s`, `47h`, `8d`."""
    seconds = int(length.total_seconds())
    if seconds < -1:
        return "<invalid>"
    if seconds < 0:
        return "0s"
    steps = (  # up to this many seconds: the larger unit, and the smaller one where it is shown
        (2 * _MINUTE, 1, "s", 0, ""),
        (10 * _MINUTE, _MINUTE, "m", 1, "s"),
        (3 * _HOUR, _MINUTE, "m", 0, ""),
        (8 * _HOUR, _HOUR, "h", _MINUTE, "m"),
        (2 * _DAY, _HOUR, "h", 0, ""),
        (8 * _DAY, _DAY, "d", _HOUR, "h"),
        (2 * _YEAR, _DAY, "d", 0, ""),
        (8 * _YEAR, _YEAR, "y", _DAY, "d"),
    )
    for limit, unit, letter, smaller, small_letter in steps:
        if seconds < limit:
            rest = seconds % unit // smaller if smaller else 0
            return f"{seconds // unit}{letter}" + (f"{rest}{small_letter}" if rest else "")
    return f"{seconds // _YEAR}y"


def since(document: object, path: str, now: datetime.datetime) -> str:
    """Return how long ago a time of an object was."""
    then = moment(document, path)
    return "<unknown>" if then is None else human_duration(now - then)


def age(document: object, now: datetime.datetime) -> str:
    """Return how long an object has been there."""
    return since(document, "metadata.creationTimestamp", now)


# --- parts that several kinds share ------------------------------------------------------------

_MOST_LISTED: Final = 3


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "<none>"


def _selector(document: object, path: str) -> str:
    """Return a label selector as one text, its requirements in order of key."""
    found = [(key, f"{key}={value}") for key, value in pairs(document, f"{path}.matchLabels").items()]
    for one in entries(document, f"{path}.matchExpressions"):
        key, values = text(one, "key"), ",".join(sorted(texts(one, "values")))
        match text(one, "operator"):
            case "In":
                found.append((key, f"{key} in ({values})"))
            case "NotIn":
                found.append((key, f"{key} notin ({values})"))
            case "Exists":
                found.append((key, key))
            case "DoesNotExist":
                found.append((key, f"!{key}"))
            case _:
                return "<error>"
    return ",".join(shown for _, shown in sorted(found, key=lambda one: one[0])) or "<none>"


def _containers(document: object, path: str) -> Cells:
    containers = entries(document, path)
    return [",".join(text(one, "name") for one in containers), ",".join(text(one, "image") for one in containers)]


def _listed(shown: Iterable[str]) -> str:
    """Return the first few of a list, and how many more there are."""
    every = list(shown)
    more = len(every) - _MOST_LISTED
    return ",".join(every[:_MOST_LISTED]) + (f" + {more} more..." if more > 0 else "") or "<unset>"


def _is_true(document: object, path: str, condition: str) -> bool:
    return any(text(one, "type") == condition and text(one, "status") == "True" for one in entries(document, path))


def _name(document: object) -> str:
    return text(document, "metadata.name")


# --- pods --------------------------------------------------------------------------------------


class _PodState:
    """What is worked out of a pod's statuses, container by container."""

    def __init__(self, pod: Mapping[str, Any]) -> None:
        self.reason = text(pod, "status.reason") or text(pod, "status.phase")
        self.ready = 0
        self.restarts = 0
        self.restarted: datetime.datetime | None = None
        self.sidecars = frozenset(
            text(one, "name") for one in entries(pod, "spec.initContainers") if text(one, "restartPolicy") == "Always"
        )
        self._read(pod)

    def _read(self, pod: Mapping[str, Any]) -> None:
        for condition in entries(pod, "status.conditions"):
            if text(condition, "type") == "PodScheduled" and text(condition, "reason") == "SchedulingGated":
                self.reason = "SchedulingGated"
        initial = entries(pod, "status.initContainerStatuses")
        total = len(entries(pod, "spec.initContainers"))
        initializing = self._initial(initial, total)
        if not initializing or _is_true(pod, "status.conditions", "Initialized"):
            self.restarts, self.restarted = 0, None
            for status in initial:
                if text(status, "name") in self.sidecars:
                    self._count(status)
            self._regular(pod)
        if reach(pod, "metadata.deletionTimestamp") is not None:
            if text(pod, "status.reason") == "NodeLost":
                self.reason = "Unknown"
            elif text(pod, "status.phase") not in {"Succeeded", "Failed"}:
                self.reason = "Terminating"

    def _count(self, status: Mapping[str, Any]) -> None:
        self.restarts += number(status, "restartCount")
        ended = moment(status, "lastState.terminated.finishedAt")
        if ended is not None and (self.restarted is None or self.restarted < ended):
            self.restarted = ended

    def _initial(self, statuses: list[dict[str, Any]], total: int) -> bool:
        """Look at the init containers, and tell whether they are not done."""
        for place, status in enumerate(statuses):
            self._count(status)
            terminated = reach(status, "state.terminated")
            waiting = text(status, "state.waiting.reason")
            if terminated is not None and number(terminated, "exitCode") == 0:
                continue
            if text(status, "name") in self.sidecars and reach(status, "started") is True:
                self.ready += reach(status, "ready") is True
                continue
            if terminated is not None:
                self.reason = f"Init:{_ended(terminated)}"
            elif waiting and waiting != "PodInitializing":
                self.reason = f"Init:{waiting}"
            else:
                self.reason = f"Init:{place}/{total}"
            return True
        return False

    def _regular(self, pod: Mapping[str, Any]) -> None:
        running = False
        for status in reversed(entries(pod, "status.containerStatuses")):
            self._count(status)
            terminated = reach(status, "state.terminated")
            if text(status, "state.waiting.reason"):
                self.reason = text(status, "state.waiting.reason")
            elif terminated is not None:
                self.reason = _ended(terminated)
            elif reach(status, "ready") is True and reach(status, "state.running") is not None:
                running = True
                self.ready += 1
        if self.reason == "Completed" and running:
            self.reason = "Running" if _is_true(pod, "status.conditions", "Ready") else "NotReady"


def _ended(terminated: object) -> str:
    if text(terminated, "reason"):
        return text(terminated, "reason")
    signal = number(terminated, "signal")
    return f"Signal:{signal}" if signal else f"ExitCode:{number(terminated, 'exitCode')}"


def _pod(pod: Mapping[str, Any], now: datetime.datetime) -> Cells:
    state = _PodState(pod)
    restarts = str(state.restarts)
    if state.restarts and state.restarted is not None:
        restarts += f" ({human_duration(now - state.restarted)} ago)"
    total = len(entries(pod, "spec.containers")) + len(state.sidecars)
    addresses = entries(pod, "status.podIPs")
    gates = [text(one, "conditionType") for one in entries(pod, "spec.readinessGates")]
    met = sum(_is_true(pod, "status.conditions", one) for one in gates)
    return [
        _name(pod),
        f"{state.ready}/{total}",
        state.reason,
        restarts,
        age(pod, now),
        text(addresses[0] if addresses else pod, "ip" if addresses else "status.podIP", "<none>"),
        text(pod, "spec.nodeName", "<none>"),
        text(pod, "status.nominatedNodeName", "<none>"),
        f"{met}/{len(gates)}" if gates else "<none>",
    ]


# --- nodes -------------------------------------------------------------------------------------

_ROLE: Final = "node-role.kubernetes.io/"


def _node(node: Mapping[str, Any], now: datetime.datetime) -> Cells:
    ready = [text(one, "status") for one in entries(node, "status.conditions") if text(one, "type") == "Ready"]
    status = ("Ready" if ready[-1] == "True" else "NotReady") if ready else "Unknown"
    if reach(node, "spec.unschedulable") is True:
        status += ",SchedulingDisabled"
    labels = pairs(node, "metadata.labels")
    roles = {key.removeprefix(_ROLE) for key in labels if key.startswith(_ROLE) and key != _ROLE}
    roles.update(value for value in (labels.get("kubernetes.io/role"),) if value)
    kernel = text(node, "status.nodeInfo.kernelVersion", "<unknown>")
    architecture = text(node, "status.nodeInfo.architecture")
    return [
        _name(node),
        status,
        ",".join(sorted(roles)) or "<none>",
        age(node, now),
        text(node, "status.nodeInfo.kubeletVersion"),
        _address(node, "InternalIP"),
        _address(node, "ExternalIP"),
        text(node, "status.nodeInfo.osImage", "<unknown>"),
        f"{kernel} ({architecture})" if architecture else kernel,
        text(node, "status.nodeInfo.containerRuntimeVersion", "<unknown>"),
    ]


def _address(node: Mapping[str, Any], kind: str) -> str:
    found = (text(one, "address") for one in entries(node, "status.addresses") if text(one, "type") == kind)
    return next(found, "<none>")


# --- controllers -------------------------------------------------------------------------------


def _workload(document: Mapping[str, Any]) -> Cells:
    """Return the wide columns of whatever has a template and a selector."""
    return [*_containers(document, "spec.template.spec.containers"), _selector(document, "spec.selector")]


def _daemonset(one: Mapping[str, Any], now: datetime.datetime) -> Cells:
    counts = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    return [
        _name(one),
        *(number(one, f"status.{count}") for count in counts),
        _labels(pairs(one, "spec.template.spec.nodeSelector")),
        age(one, now),
        *_workload(one),
    ]


def _deployment(one: Mapping[str, Any], now: datetime.datetime) -> Cells:
    return [
        _name(one),
        f"{number(one, 'status.readyReplicas')}/{_replicas(one)}",
        number(one, "status.updatedReplicas"),
        number(one, "status.availableReplicas"),
        age(one, now),
        *_workload(one),
    ]


def _replicaset(one: Mapping[str, Any], now: datetime.datetime) -> Cells:
    counts = number(one, "status.replicas"), number(one, "status.readyReplicas")
    return [_name(one), _replicas(one), *counts, age(one, now), *_workload(one)]


def _statefulset(one: Mapping[str, Any], now: datetime.datetime) -> Cells:
    ready = f"{number(one, 'status.readyReplicas')}/{_replicas(one)}"
    return [_name(one), ready, age(one, now), *_containers(one, "spec.template.spec.containers")]


def _replicas(one: Mapping[str, Any]) -> int:
    """Return how many are wanted; an API server writes 1 where nobody says."""
    return number(one, "spec.replicas") if reach(one, "spec.replicas") is not None else 1


_JOB_STATES: Final = {
    "Complete": "Complete",
    "Failed": "Failed",
    "": "Terminating",
    "Suspended": "Suspended",
    "FailureTarget": "FailureTarget",
    "SuccessCriteriaMet": "SuccessCriteriaMet",
}


def _job(job: Mapping[str, Any], now: datetime.datetime) -> Cells:
    succeeded = number(job, "status.succeeded")
    parallelism = number(job, "spec.parallelism")
    if reach(job, "spec.completions") is not None:
        completions = f"{succeeded}/{number(job, 'spec.completions')}"
    else:
        completions = f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"
    started, ended = moment(job, "status.startTime"), moment(job, "status.completionTime")
    leaving = reach(job, "metadata.deletionTimestamp") is not None
    status = next(
        (
            shown
            for condition, shown in _JOB_STATES.items()
            if (_is_true(job, "status.conditions", condition) if condition else leaving)
        ),
        "Running",
    )
    duration = "" if started is None else human_duration((ended or now) - started)
    return [_name(job), status, completions, duration, age(job, now), *_workload(job)]


def _controllerrevision(one: Mapping[str, Any], now: datetime.datetime) -> Cells:
    owners = [owner for owner in entries(one, "metadata.ownerReferences") if reach(owner, "controller") is True]
    controller = "<none>"
    if owners:
        group, slash, _ = text(owners[0], "apiVersion").partition("/")
        kind = text(owners[0], "kind") + (f".{group}" if slash else "")
        controller = f"{kind.lower()}/{text(owners[0], 'name')}"
    return [_name(one), controller, number(one, "revision"), age(one, now)]


# --- events ------------------------------------------------------------------------------------


def _event(event: Mapping[str, Any], now: datetime.datetime) -> Cells:
    """Return the cells of an event of either group: events.k8s.io names the same fields otherwise."""
    regarding = "involvedObject" if reach(event, "involvedObject") is not None else "regarding"
    old = "" if regarding == "involvedObject" else "deprecated"
    first = _first_of(event, now, f"{old}FirstTimestamp" if old else "firstTimestamp", "eventTime")
    last = _first_of(event, now, f"{old}LastTimestamp" if old else "lastTimestamp")
    last = first if last == "<unknown>" else last
    count = number(event, f"{old}Count" if old else "count") or 1
    if reach(event, "series") is not None:
        last, count = since(event, "series.lastObservedTime", now), number(event, "series.count")
    source = f"{old}Source" if old else "source"
    component = text(event, f"{source}.component") or text(
        event, "reportingController" if old else "reportingComponent"
    )
    instance = text(event, f"{source}.host") or text(event, "reportingInstance")
    target = text(event, f"{regarding}.kind").lower()
    name = text(event, f"{regarding}.name")
    return [
        last,
        text(event, "type"),
        text(event, "reason"),
        f"{target}/{name}" if name else target,
        text(event, f"{regarding}.fieldPath"),
        f"{component}, {instance}" if instance else component,
        text(event, "note" if old else "message").strip(),
        first,
        count,
        _name(event),
    ]


def _first_of(event: Mapping[str, Any], now: datetime.datetime, *paths: str) -> str:
    return next((found for path in paths if (found := since(event, path, now)) != "<unknown>"), "<unknown>")


# --- services and endpoints --------------------------------------------------------------------


def _service(service: Mapping[str, Any], now: datetime.datetime) -> Cells:
    addresses = texts(service, "spec.clusterIPs") or [text(service, "spec.clusterIP", "<none>")]
    ports = ",".join(
        f"{number(one, 'port')}{':' + str(number(one, 'nodePort')) if number(one, 'nodePort') else ''}"
        f"/{text(one, 'protocol', 'TCP')}"
        for one in entries(service, "spec.ports")
    )
    return [
        _name(service),
        text(service, "spec.type", "ClusterIP"),
        addresses[0],
        _external(service),
        ports or "<none>",
        age(service, now),
        _labels(pairs(service, "spec.selector")),
    ]


def _external(service: Mapping[str, Any]) -> str:
    own = texts(service, "spec.externalIPs")
    match text(service, "spec.type", "ClusterIP"):
        case "ClusterIP" | "NodePort":
            return ",".join(own) or "<none>"
        case "LoadBalancer":
            points = entries(service, "status.loadBalancer.ingress")
            balanced = sorted({text(one, "ip") or text(one, "hostname") for one in points} - {""})
            return ",".join([*balanced, *own]) or "<pending>"
        case "ExternalName":
            return text(service, "spec.externalName")
        case _:
            return "<unknown>"


def _endpointslice(one: Mapping[str, Any], now: datetime.datetime) -> Cells:
    ports = (str(number(port, "port") or text(port, "name", "*")) for port in entries(one, "ports"))
    addresses = (address for endpoint in entries(one, "endpoints") for address in texts(endpoint, "addresses"))
    return [_name(one), text(one, "addressType"), _listed(ports), _listed(addresses), age(one, now)]


# --- the rest ----------------------------------------------------------------------------------


def _configmap(one: Mapping[str, Any], now: datetime.datetime) -> Cells:
    count = sum(len(found) for key in ("data", "binaryData") if isinstance(found := reach(one, key), dict))
    return [_name(one), count, age(one, now)]


def _namespace(one: Mapping[str, Any], now: datetime.datetime) -> Cells:
    return [_name(one), text(one, "status.phase"), age(one, now)]


def _serviceaccount(one: Mapping[str, Any], now: datetime.datetime) -> Cells:
    return [_name(one), len(entries(one, "secrets")), age(one, now)]


def _runtimeclass(one: Mapping[str, Any], now: datetime.datetime) -> Cells:
    return [_name(one), text(one, "handler"), age(one, now)]


def _lease(one: Mapping[str, Any], now: datetime.datetime) -> Cells:
    return [_name(one), text(one, "spec.holderIdentity"), age(one, now)]


def _priorityclass(one: Mapping[str, Any], now: datetime.datetime) -> Cells:
    is_default = reach(one, "globalDefault") is True
    return [_name(one), number(one, "value"), is_default, age(one, now), text(one, "preemptionPolicy")]


def _resourcequota(one: Mapping[str, Any], now: datetime.datetime) -> Cells:
    requests: list[str] = []
    limits: list[str] = []
    hard, used = reach(one, "status.hard"), reach(one, "status.used")
    for name in sorted(hard if isinstance(hard, dict) else {}):
        there = used.get(name, "0") if isinstance(used, dict) else "0"
        (limits if name.startswith("limits.") else requests).append(f"{name}: {there}/{hard[name]}")
    return [_name(one), ", ".join(requests), ", ".join(limits), age(one, now)]


def _resourceclaim(one: Mapping[str, Any], now: datetime.datetime) -> Cells:
    leaving = reach(one, "metadata.deletionTimestamp") is not None
    states = ["deleted"] if leaving else []
    if reach(one, "status.allocation") is not None:
        states.append("allocated")
        if entries(one, "status.reservedFor"):
            states.append("reserved")
    elif not leaving:
        states.append("pending")
    return [_name(one), ",".join(states), age(one, now)]


def _resourceslice(one: Mapping[str, Any], now: datetime.datetime) -> Cells:
    places = (text(one, path) for path in ("spec.nodeName", "spec.driver", "spec.pool.name"))
    return [_name(one), *places, age(one, now)]


def _devicetaintrule(one: Mapping[str, Any], now: datetime.datetime) -> Cells:
    taint = (text(one, f"spec.taint.{name}") for name in ("key", "value", "effect"))
    return [_name(one), *taint, since(one, "spec.taint.timeAdded", now), age(one, now)]


def _other(one: Mapping[str, Any], now: datetime.datetime) -> Cells:
    return [_name(one), age(one, now)]


def _plain(one: Mapping[str, Any], _now: datetime.datetime) -> Cells:
    """Return the cells of a kind that upstream has no printer for."""
    return [_name(one), text(one, "metadata.creationTimestamp", "<unknown>")]


def _columns(names: str) -> tuple[Column, ...]:
    """Return columns: names between bars, `+` before what only `-o wide` shows, `#` before what holds numbers."""
    return tuple(
        Column(
            name.lstrip("+#"),
            "integer" if "#" in name[:2] else "string",
            "name" if name.lstrip("+") == "Name" else "",
            priority=1 if name.startswith("+") else 0,
        )
        for name in names.split("|")
    )


_WIDE: Final = "+Containers|+Images|+Selector"
_OTHERS: Final = Printer(_columns("Name|Age"), _other)
_PLAIN: Final = Printer(_columns("Name|Created At"), _plain)
_EVENTS: Final = Printer(
    _columns("Last Seen|Type|Reason|Object|+Subobject|+Source|Message|+First Seen|+#Count|+Name"), _event
)
_PRINTERS: Final[Mapping[str, Printer]] = {
    "pods": Printer(_columns("Name|Ready|Status|Restarts|Age|+IP|+Node|+Nominated Node|+Readiness Gates"), _pod),
    "nodes": Printer(
        _columns(
            "Name|Status|Roles|Age|Version|+Internal-IP|+External-IP|+OS-Image|+Kernel-Version|+Container-Runtime"
        ),
        _node,
    ),
    "daemonsets.apps": Printer(
        _columns(f"Name|#Desired|#Current|#Ready|#Up-to-date|#Available|Node Selector|Age|{_WIDE}"), _daemonset
    ),
    "deployments.apps": Printer(_columns(f"Name|Ready|#Up-to-date|#Available|Age|{_WIDE}"), _deployment),
    "replicasets.apps": Printer(_columns(f"Name|#Desired|#Current|#Ready|Age|{_WIDE}"), _replicaset),
    "statefulsets.apps": Printer(_columns("Name|Ready|Age|+Containers|+Images"), _statefulset),
    "jobs.batch": Printer(_columns(f"Name|Status|Completions|Duration|Age|{_WIDE}"), _job),
    "controllerrevisions.apps": Printer(_columns("Name|Controller|#Revision|Age"), _controllerrevision),
    "events": _EVENTS,
    "events.events.k8s.io": _EVENTS,
    "services": Printer(_columns("Name|Type|Cluster-IP|External-IP|Port(s)|Age|+Selector"), _service),
    "endpointslices.discovery.k8s.io": Printer(_columns("Name|AddressType|Ports|Endpoints|Age"), _endpointslice),
    "configmaps": Printer(_columns("Name|#Data|Age"), _configmap),
    "namespaces": Printer(_columns("Name|Status|Age"), _namespace),
    "serviceaccounts": Printer(_columns("Name|#Secrets|Age"), _serviceaccount),
    "runtimeclasses.node.k8s.io": Printer(_columns("Name|Handler|Age"), _runtimeclass),
    "leases.coordination.k8s.io": Printer(_columns("Name|Holder|Age"), _lease),
    "priorityclasses.scheduling.k8s.io": Printer(
        _columns("Name|#Value|Global-Default|Age|PreemptionPolicy"), _priorityclass
    ),
    "resourcequotas": Printer(_columns("Name|Request|Limit|Age"), _resourcequota),
    "resourceclaims.resource.k8s.io": Printer(_columns("Name|State|Age"), _resourceclaim),
    "resourceslices.resource.k8s.io": Printer(_columns("Name|Node|Driver|Pool|Age"), _resourceslice),
    "devicetaintrules.resource.k8s.io": Printer(_columns("Name|Key|Value|Effect|TimeAdded|Age"), _devicetaintrule),
    "limitranges": _PLAIN,
    "roles.rbac.authorization.k8s.io": _PLAIN,
    "clusterroles.rbac.authorization.k8s.io": _PLAIN,
    "customresourcedefinitions.apiextensions.k8s.io": _PLAIN,
}
