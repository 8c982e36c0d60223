"""The scheduler's own rules on one node: nodeName, selector, node affinity, cordon, taints.

Not evaluated: resources in use, topology spread, pod affinity, volumes, ports, admission plug-ins; a
caller that decides more says so. Source: Kubernetes documentation, "Assigning Pods to Nodes", "Taints
and Tolerations"; k8s.io/component-helpers/scheduling/corev1/nodeaffinity, k8s.io/api/core/v1/toleration.go
and pkg/controller/daemon at 1.36.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.documents import (
    DaemonSetDocument,
    LabelSelector,
    NodeDocument,
    NodeSelectorTerm,
    PodSpec,
    Requirement,
    Taint,
    Toleration,
)
from kube_gpucheck.evidence.readings import attempt, need
from kube_gpucheck.model import Reading

if TYPE_CHECKING:
    from kube_gpucheck.evidence.node import Node

DAEMON_TOLERATIONS: Final = (
    Toleration(key="node.kubernetes.io/not-ready", operator="Exists", effect="NoExecute"),
    Toleration(key="node.kubernetes.io/unreachable", operator="Exists", effect="NoExecute"),
    Toleration(key="node.kubernetes.io/disk-pressure", operator="Exists", effect="NoSchedule"),
    Toleration(key="node.kubernetes.io/memory-pressure", operator="Exists", effect="NoSchedule"),
    Toleration(key="node.kubernetes.io/pid-pressure", operator="Exists", effect="NoSchedule"),
    Toleration(key="node.kubernetes.io/unschedulable", operator="Exists", effect="NoSchedule"),
)
"""What the DaemonSet controller adds to each pod.

Source: Kubernetes documentation, "DaemonSet: taints and tolerations".
"""
HOST_NETWORK_TOLERATION: Final = Toleration(
    key="node.kubernetes.io/network-unavailable", operator="Exists", effect="NoSchedule"
)
"""What it adds to pods of the host's network. Source: the same."""
UNSCHEDULABLE: Final = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")
"""The taint of a cordoned node, which the scheduler assumes before it stands there."""
LIFECYCLE_TAINTS: Final = frozenset(
    f"node.kubernetes.io/{name}"
    for name in (
        "not-ready",
        "unreachable",
        "memory-pressure",
        "disk-pressure",
        "pid-pressure",
        "network-unavailable",
        "unschedulable",
    )
)
"""Taints that repeat a node's conditions, and that no one is expected to tolerate by hand."""

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_LARGEST: Final = 2**63
_REPELLING: Final = frozenset({"NoSchedule", "NoExecute"})


class Rejection(msgspec.Struct, frozen=True):
    """Why a node is excluded.

    `rule`: nodeName, nodeSelector, affinity, unschedulable or taint. `wanted`: the term that fails, as the
    object writes it. `found`: what the node has instead. `keys`: the label or taint keys meant.
    """

    rule: str
    wanted: str
    found: str
    keys: tuple[str, ...]

    def __str__(self) -> str:
        """Return one line for a reader."""
        match self.rule:
            case "taint":
                return f"{self.found} is not tolerated"
            case "unschedulable":
                return "the node is cordoned"
            case _:
                return f"{self.rule} needs {self.wanted}; the node has {self.found}"

    @property
    def is_by_label(self) -> bool:
        """Whether a label that is missing or other excludes the node."""
        return self.rule in {"nodeSelector", "affinity"}


def rejection(
    document: Reading[DaemonSetDocument], node: "Node", *, taints: bool = True, conditions: bool = True
) -> Reading[Rejection | None]:
    """Return why a DaemonSet's pods may not run on a node, None if they may."""

    def derive() -> Rejection | None:
        spec = need(document).spec.template.spec
        return reject(spec, node, tolerations=daemon_tolerations(spec), taints=taints, conditions=conditions)

    return attempt(derive)


def daemon_tolerations(spec: PodSpec) -> tuple[Toleration, ...]:
    """Return a template's tolerations with those that the DaemonSet controller adds."""
    extra = (HOST_NETWORK_TOLERATION,) if spec.host_network else ()
    return (*(spec.tolerations or ()), *DAEMON_TOLERATIONS, *extra)


def reject(
    spec: PodSpec, node: "Node", *, tolerations: tuple[Toleration, ...], taints: bool = True, conditions: bool = True
) -> Rejection | None:
    """Return the first rule by which a pod may not run on a node, None if it may.

    Without `taints` neither taints nor the cordon are looked at; without `conditions` not the taints that
    repeat the node's conditions (not-ready and its kin), which end by themselves when the node is well.

    Raises:
        GapError: the node's object is missing; call it inside a derivation.
    """
    return reject_document(spec, need(node.object), tolerations=tolerations, taints=taints, conditions=conditions)


def reject_document(
    spec: PodSpec,
    document: NodeDocument,
    *,
    tolerations: tuple[Toleration, ...],
    taints: bool = True,
    conditions: bool = True,
) -> Rejection | None:
    """Return what `reject` does, of a node's object."""
    labels, name = document.metadata.labels or {}, document.metadata.name
    if spec.node_name and spec.node_name != name:
        return Rejection("nodeName", spec.node_name, name, ("spec.nodeName",))
    for key, value in (spec.node_selector or {}).items():
        if labels.get(key) != value:
            return Rejection("nodeSelector", f"{key}={value}", _label(labels, key), (key,))
    affinity = spec.affinity.node_affinity if spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    if required is not None and not any(term_holds(term, labels, name) for term in required.node_selector_terms):
        keys = tuple(dict.fromkeys(one.key for term in required.node_selector_terms for one in _requirements(term)))
        wanted = " or ".join(_term(term) for term in required.node_selector_terms) or "nothing: no terms match no node"
        found = ", ".join(_label({**labels, "metadata.name": name}, key) for key in keys) or "no such labels"
        return Rejection("affinity", wanted, found, keys)
    if not taints:
        return None
    if document.spec.unschedulable and not tolerated(UNSCHEDULABLE, tolerations):
        return Rejection("unschedulable", f"a toleration of {show(UNSCHEDULABLE)}", "a cordon", (UNSCHEDULABLE.key,))
    for taint in document.spec.taints or ():
        if not conditions and taint.key in LIFECYCLE_TAINTS:
            continue
        if taint.effect in _REPELLING and not tolerated(taint, tolerations):
            return Rejection("taint", f"a toleration of {show(taint)}", f"taint {show(taint)}", (taint.key,))
    return None


def selection(spec: PodSpec) -> tuple[str, ...]:
    """Return the label keys by which a pod selects nodes, each once; empty if any node will do."""
    affinity = spec.affinity.node_affinity if spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    terms = required.node_selector_terms if required else ()
    by_affinity = (one.key for term in terms for one in term.match_expressions or ())
    return tuple(dict.fromkeys((*(spec.node_selector or {}), *by_affinity)))


def untolerated(spec: PodSpec, taints: tuple[Taint, ...]) -> tuple[Taint, ...]:
    """Return the taints that keep a DaemonSet's pods away, in the node's order."""
    tolerations = daemon_tolerations(spec)
    return tuple(one for one in taints if one.effect in _REPELLING and not tolerated(one, tolerations))


def tolerated(taint: Taint, tolerations: tuple[Toleration, ...]) -> bool:
    """Tell whether any of the tolerations matches the taint."""
    return any(_tolerates(one, taint) for one in tolerations)


def _tolerates(one: Toleration, taint: Taint) -> bool:
    """Tell whether a toleration matches a taint.

    An empty key matches every key, but only with Exists; an empty effect matches every effect. Gt and Lt
    compare the taint's value with the toleration's (KEP-5471); what is no number matches nothing.
    """
    if (one.key and one.key != taint.key) or (one.effect and one.effect != taint.effect):
        return False
    match one.operator:
        case "Exists":
            return True
        case "Equal" | "":
            return bool(one.key) and one.value == (taint.value or "")
        case "Gt" | "Lt":
            there, limit = _integer(taint.value or ""), _integer(one.value)
            if not one.key or there is None or limit is None:
                return False
            return there > limit if one.operator == "Gt" else there < limit
        case _:
            return False


def show(taint: Taint) -> str:
    """Return a taint as kubectl writes it."""
    return f"{taint.key}{'=' + taint.value if taint.value else ''}:{taint.effect}"


def holds(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    """Tell whether one requirement holds on these labels.

    One that Kubernetes would refuse (an unknown operator, In and NotIn without values, Exists and
    DoesNotExist with some, Gt and Lt with other than one integer) holds nowhere: its term is dropped.
    """
    value = labels.get(requirement.key)
    values = requirement.values or ()
    match requirement.operator:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return bool(values) and (value is None or value not in values)
        case "Exists":
            return value is not None and not values
        case "DoesNotExist":
            return value is None and not values
        case "Gt" | "Lt":
            there = None if value is None else _integer(value)
            limit = _integer(values[0]) if len(values) == 1 else None
            if there is None or limit is None:
                return False
            return there > limit if requirement.operator == "Gt" else there < limit
        case _:
            return False


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Tell whether a label selector matches; an empty one matches all. It knows neither Gt nor Lt."""
    return all(labels.get(key) == value for key, value in (selector.match_labels or {}).items()) and all(
        one.operator not in {"Gt", "Lt"} and holds(one, labels) for one in selector.match_expressions or ()
    )


def term_holds(term: NodeSelectorTerm, labels: Mapping[str, str], name: str) -> bool:
    """Tell whether all of a term's requirements hold; an empty term matches no node."""
    if not _requirements(term):
        return False
    return all(holds(one, labels) for one in term.match_expressions or ()) and all(
        _field_holds(one, name) for one in term.match_fields or ()
    )


def _field_holds(one: Requirement, name: str) -> bool:
    """Tell whether a requirement on a field holds: only metadata.name, In or NotIn, and one value are known."""
    if one.key != "metadata.name" or len(one.values or ()) != 1 or one.operator not in {"In", "NotIn"}:
        return False
    return holds(one, {"metadata.name": name})


def _integer(text: str) -> int | None:
    """Return a number as Go's ParseInt reads it, None if it is none: no blanks, no underscores, 64 bits."""
    if not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    return number if -_LARGEST <= number < _LARGEST else None


def _requirements(term: NodeSelectorTerm) -> tuple[Requirement, ...]:
    return (*(term.match_expressions or ()), *(term.match_fields or ()))


def _term(term: NodeSelectorTerm) -> str:
    return " and ".join(_requirement(one) for one in _requirements(term)) or "nothing: an empty term matches no node"


def _requirement(one: Requirement) -> str:
    values = one.values or ()
    match one.operator:
        case "In" if len(values) == 1:
            return f"{one.key}={values[0]}"
        case "In":
            return f"{one.key} in ({', '.join(values)})"
        case "NotIn":
            return f"{one.key} not in ({', '.join(values)})"
        case "Exists":
            return one.key
        case "DoesNotExist":
            return f"no {one.key}"
        case "Gt" | "Lt":
            return f"{one.key} {'>' if one.operator == 'Gt' else '<'} {', '.join(values)}"
        case _:
            return f"{one.key} {one.operator} {', '.join(values)}"


def _label(labels: Mapping[str, str], key: str) -> str:
    return f"{key}={labels[key]}" if key in labels else f"no {key}"
