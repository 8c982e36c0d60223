"""The scheduler's own rules on one node: selector, node affinity, taints.

Not evaluated: resources in use, topology spread, pod affinity, volumes, ports; a caller says so.
Source: Kubernetes documentation, "Assigning Pods to Nodes" and "Taints and Tolerations".
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from kube_gpucheck.evidence.documents import LabelSelector, NodeSelectorTerm, PodSpec, Requirement, Taint, Toleration
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
"""What the DaemonSet controller adds to each pod (network-unavailable too, for host-network pods).

Source: Kubernetes documentation, "DaemonSet: taints and tolerations".
"""


class Rejection(msgspec.Struct, frozen=True):
    """Why a node is excluded.

    `rule`: nodeSelector, affinity, taint, nodeName or unschedulable. `wanted`: the term that fails,
    as the object writes it. `found`: what the node has instead. `keys`: the label or taint keys meant.
    """

    rule: str
    wanted: str
    found: str
    keys: tuple[str, ...]

    def __str__(self) -> str:
        """Return one line for a reader."""
        return f"{self.rule} needs {self.wanted}; the node has {self.found}" if self.rule != "taint" else f"{self.found} is not tolerated"


class HasTemplate(Protocol):
    """An object with a pod template (DaemonSet, Deployment)."""


def rejection(document: "Reading[object]", node: "Node", *, taints: bool = True) -> Reading[Rejection | None]:
    """Return why a DaemonSet's pods may not run on a node, None if they may."""

    def derive() -> Rejection | None:
        spec: PodSpec = need(document).spec.template.spec  # type: ignore[attr-defined]  # both objects have it
        return reject(spec, node, tolerations=(*(spec.tolerations or ()), *DAEMON_TOLERATIONS), taints=taints)

    return attempt(derive)


def reject(spec: PodSpec, node: "Node", *, tolerations: tuple[Toleration, ...], taints: bool = True) -> Rejection | None:
    """Return the first rule by which a pod may not run on a node, None if it may.

    Raises:
        GapError: the node's object is missing; call it inside a derivation.
    """
    labels = need(node.labels)
    for key, value in (spec.node_selector or {}).items():
        if labels.get(key) != value:
            return Rejection("nodeSelector", f"{key}={value}", _label(labels, key), (key,))
    affinity = spec.affinity.node_affinity if spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    if required is not None and not any(_term_holds(term, labels, node.name) for term in required.node_selector_terms):
        keys = tuple(dict.fromkeys(one.key for term in required.node_selector_terms for one in (*(term.match_expressions or ()), *(term.match_fields or ()))))
        wanted = " or ".join(_term(term) for term in required.node_selector_terms) or "nothing (no terms match no node)"
        found = ", ".join(_label(labels, key) for key in keys) or "no such labels"
        return Rejection("affinity", wanted, found, keys)
    if not taints:
        return None
    for taint in need(node.object).spec.taints or ():
        if taint.effect in {"NoSchedule", "NoExecute"} and not tolerated(taint, tolerations):
            return Rejection("taint", f"a toleration of {show(taint)}", f"taint {show(taint)}", (taint.key,))
    return None


def tolerated(taint: Taint, tolerations: tuple[Toleration, ...]) -> bool:
    """Tell whether any of the tolerations matches the taint."""
    return any(
        (not one.key or one.key == taint.key)
        and (not one.effect or one.effect == taint.effect)
        and (one.operator == "Exists" or (bool(one.key) and one.value == (taint.value or "")))
        for one in tolerations
    )


def show(taint: Taint) -> str:
    """Return a taint as kubectl writes it."""
    return f"{taint.key}{'=' + taint.value if taint.value else ''}:{taint.effect}"


def holds(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    """Tell whether one requirement holds on these labels. An unknown operator holds nowhere."""
    value = labels.get(requirement.key)
    values = requirement.values or ()
    match requirement.operator:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            try:
                left, right = int(value or ""), int(values[0])
            except (ValueError, IndexError):
                return False
            return left > right if requirement.operator == "Gt" else left < right
        case _:
            return False


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Tell whether a label selector matches; an empty one matches all."""
    return all(labels.get(key) == value for key, value in (selector.match_labels or {}).items()) and all(
        holds(one, labels) for one in selector.match_expressions or ()
    )


def _term_holds(term: NodeSelectorTerm, labels: Mapping[str, str], name: str) -> bool:
    expressions, fields = term.match_expressions or (), term.match_fields or ()
    if not expressions and not fields:
        return False  # Kubernetes: a null or empty term matches no objects
    return all(holds(one, labels) for one in expressions) and all(holds(one, {"metadata.name": name}) for one in fields)


def _term(term: NodeSelectorTerm) -> str:
    return " and ".join(_requirement(one) for one in (*(term.match_expressions or ()), *(term.match_fields or ())))


def _requirement(one: Requirement) -> str:
    values = one.values or ()
    if one.operator == "In" and len(values) == 1:
        return f"{one.key}={values[0]}"
    return f"{one.key} {one.operator} {list(values)}" if values else f"{one.key} {one.operator}"


def _label(labels: Mapping[str, str], key: str) -> str:
    return f"{key}={labels[key]}" if key in labels else f"no {key}"
