"""What the GPU Operator says of its own work: its policy objects and their conditions.

Judges nothing. Source: gpu-operator api/nvidia/{v1,v1alpha1}, internal/conditions and
controllers/clusterpolicy_controller.go (23.9 to 26.7; conditions were added in 23.9.0), upstream-facts §8.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kube_gpucheck.evidence.documents import Condition, PolicyDocument
from kube_gpucheck.evidence.readings import GapError, derived, need
from kube_gpucheck.evidence.stack import parse_version
from kube_gpucheck.model import Missing, MissingKind

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster

POLICY_KINDS: Final = {
    "clusterpolicies.nvidia.com": "ClusterPolicy",
    "gpuclusters.nvidia.com": "GPUCluster",
    "nvidiadrivers.nvidia.com": "NVIDIADriver",
}
"""The objects by which somebody tells the operator what to deploy."""
WORKED: Final = "Reconciled"
"""The one reason of a Ready condition that means something was deployed. Source: internal/conditions/consts.go."""
_CONDITIONS_SINCE: Final = (23, 9, 0)
_STATES: Final = re.compile(r"states not ready: \[([^\]]{0,2000})\]")


class Policy(msgspec.Struct, frozen=True):
    """One policy object.

    `state`: ready, notReady, ignored, disabled, or empty before the operator looked at it. `reason` and
    `message`: of the condition that speaks (Ready where it is True, else Error), empty without conditions.
    `is_ready`: what the Ready condition says, None where there is none. `version`: the operator's, from the
    chart's label, None if it does not tell.
    """

    kind: str
    name: str
    state: str
    is_ready: bool | None
    reason: str
    message: str
    version: tuple[int, int, int] | None

    def __str__(self) -> str:
        """Return it as a reader would type it."""
        return f"{self.kind} '{self.name}'"

    @property
    def states_not_ready(self) -> tuple[str, ...]:
        """The operator's states that its message names, in its order."""
        found = _STATES.search(self.message)
        return tuple(found[1].split()) if found else ()

    @property
    def has_no_conditions_yet(self) -> bool:
        """Whether this operator is too old to write conditions, so that its state alone speaks."""
        return self.is_ready is None and self.version is not None and self.version < _CONDITIONS_SINCE


class Operator:
    """The GPU Operator in one cluster."""

    def __init__(self, cluster: "Cluster") -> None:
        """Keep the cluster."""
        self.cluster = cluster

    @derived
    def is_served(self) -> bool:
        """Whether the API serves any of the operator's policy kinds, as far as they were asked for."""
        return any(one is not None for one in need(self._lists))

    @derived
    def policies(self) -> tuple[Policy, ...]:
        """All policy objects, in order of kind and name."""
        found: list[Policy] = []
        for (kind, spoken), listed in zip(POLICY_KINDS.items(), need(self._lists), strict=True):
            found += [_policy(spoken, one) for one in listed or ()]
            bad = need(self.cluster.items(kind)) if listed is not None else None
            if bad is not None and bad.bad:
                reason = f"{spoken} '{bad.bad[0].name}': {bad.bad[0].reason}"
                raise GapError(Missing(MissingKind.UNPARSABLE, reason, f"cluster/{kind}.json"))
        return tuple(sorted(found, key=lambda one: (one.kind, one.name)))

    @derived
    def gpudirect(self) -> dict[str, str]:
        """The kernel modules that policies ask for, each with the option that does; empty without such a policy.

        Source: ClusterPolicy, spec.driver.rdma.enabled, spec.gds.enabled, spec.gdrcopy.enabled; NVIDIADriver likewise.
        """
        found = {}
        for listed in need(self._lists):
            for document in listed or ():
                spec = document.spec or {}
                for module, path in _GPUDIRECT.items():
                    if any(_is_enabled(spec, one) for one in path):
                        found[module] = ".".join(path[0]) + ".enabled"
        return found

    @derived
    def _lists(self) -> tuple[tuple[PolicyDocument, ...] | None, ...]:
        """The objects of each kind, None where it is not served; a kind that nobody asked for is passed over.

        A server of the group need not serve all kinds: releases before 26.7 have no GPUCluster.
        """
        found: list[tuple[PolicyDocument, ...] | None] = []
        first: Missing | None = None
        asked = 0
        for kind in POLICY_KINDS:
            items = self.cluster.items(kind)
            if isinstance(items, Missing) and items.kind is MissingKind.NOT_ASKED:
                first = first or items
                found.append(None)
                continue
            asked += 1
            listed = need(items)
            found.append(None if listed is None else listed.good)
        if not asked and first is not None:
            raise GapError(first)
        return tuple(found)


_GPUDIRECT: Final = {
    "nvidia_peermem": (("driver", "rdma"), ("rdma",)),
    "nvidia_fs": (("gds",),),
    "gdrdrv": (("gdrcopy",),),
}
"""Kernel modules by where a policy asks for them: first ClusterPolicy's place. Source: api/nvidia/{v1,v1alpha1}."""


def _is_enabled(spec: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    part: object = spec
    for name in path:
        part = part.get(name) if isinstance(part, Mapping) else None
    return isinstance(part, Mapping) and part.get("enabled") is True


def _policy(kind: str, document: PolicyDocument) -> Policy:
    conditions = {one.type: one for one in document.status.conditions or ()}
    ready = conditions.get("Ready")
    is_ready = None if ready is None else ready.status == "True"
    speaks = ready if is_ready else _speaking(conditions)
    labels = document.metadata.labels or {}
    version = parse_version(labels.get("app.kubernetes.io/version", ""))
    return Policy(
        kind,
        document.metadata.name,
        document.status.state,
        is_ready,
        speaks.reason if speaks else "",
        " ".join(speaks.message.split()) if speaks else "",
        version,
    )


def _speaking(conditions: dict[str, Condition]) -> Condition | None:
    """Return the condition that tells why it is not ready: Ready itself says only 'Error'."""
    error = conditions.get("Error")
    return error if error is not None and error.status == "True" else conditions.get("Ready")
