"""ComputeDomains: groups of nodes whose GPUs share memory over NVLink, and what their members need of their hosts.

Judges nothing. Source: dra-driver-nvidia-gpu, api/nvidia.com/resource/v1beta1/computedomain.go and
cmd/compute-domain-controller (25.3 to 0.5); NVIDIA, IMEX Service Guide.
"""

from collections import defaultdict
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.device_nodes import majors
from kube_gpucheck.evidence.documents import ComputeDomainDocument
from kube_gpucheck.evidence.dra import runs_imex
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.readings import attempt, derived, need
from kube_gpucheck.evidence.services import IMEX
from kube_gpucheck.evidence.stack import Component
from kube_gpucheck.model import Missing, MissingKind, Reading

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.node import Node

DOMAINS: Final = "computedomains.resource.nvidia.com"
CLIQUE_LABEL: Final = "nvidia.com/gpu.clique"
_CHANNELS: Final = "nvidia-caps-imex-channels"
"""The character devices by which programs get at IMEX, as the driver registers them."""


class Member(msgspec.Struct, frozen=True):
    """A node of a ComputeDomain. `clique`: its NVLink partition as the domain has it, "" where it has none."""

    node: str
    clique: str
    is_ready: bool


class Domain(msgspec.Struct, frozen=True):
    """One ComputeDomain. `wanted`: how many nodes it is to have, 0 where that is left open.

    `age_s`: how long it has been there, in seconds. `users`: pods that claim its channel and are bound to a node, with
    that node and the seconds since they were made.
    """

    name: str
    is_ready: bool
    wanted: int
    members: tuple[Member, ...]
    age_s: float
    users: tuple[tuple[str, str, float], ...]


class ComputeDomains:
    """The ComputeDomains of one cluster."""

    def __init__(self, cluster: "Cluster") -> None:
        """Keep the cluster."""
        self.cluster = cluster

    @derived
    def domains(self) -> tuple[Domain, ...]:
        """All ComputeDomains, in order of namespace and name; none where the API does not serve the kind."""
        items = need(self.cluster.items(DOMAINS))
        for bad in items.bad if items is not None else ():
            reason = f"ComputeDomain '{bad.namespace}/{bad.name}': {bad.reason}"
            need(Missing(MissingKind.UNPARSABLE, reason, f"cluster/{DOMAINS}.json"))
        documents = items.good if items is not None else ()
        users = need(self._users) if documents else {}
        return tuple(sorted((self._domain(one, users) for one in documents), key=lambda one: one.name))

    def _domain(
        self, document: ComputeDomainDocument, users: dict[tuple[str, str], list[tuple[str, str, float]]]
    ) -> Domain:
        namespace = document.metadata.namespace or "default"
        channel = document.spec.channel
        template = channel.resource_claim_template.name if channel is not None else ""
        made = document.metadata.creation_timestamp
        return Domain(
            name=f"{namespace}/{document.metadata.name}",
            is_ready=document.status.status == "Ready",
            wanted=document.spec.num_nodes,
            members=tuple(
                Member(one.name, one.clique_id, one.status == "Ready") for one in document.status.nodes or ()
            ),
            age_s=(self.cluster.gathered_at - made).total_seconds() if made is not None else float("inf"),
            users=tuple(users.get((namespace, template), ())),
        )

    @derived
    def _users(self) -> dict[tuple[str, str], list[tuple[str, str, float]]]:
        """The living pods that are bound to a node, by namespace and name of the claim templates that they name."""
        found: dict[tuple[str, str], list[tuple[str, str, float]]] = defaultdict(list)
        for pod in need(self.cluster.readable_pods):
            if pod.node_name is None or not need(pod.outline).names_claims or need(pod.is_finished):
                continue
            document = need(pod.object)
            made = document.metadata.creation_timestamp
            age = (self.cluster.gathered_at - made).total_seconds() if made is not None else float("inf")
            for one in document.spec.resource_claims or ():
                key = (pod.namespace, one.resource_claim_template_name or "")
                found[key].append((f"{pod.namespace}/{pod.name}", pod.node_name, age))
        return dict(found)

    @derived
    def shared_cliques(self) -> dict[str, tuple[str, ...]]:
        """The ComputeDomains by each NVLink partition that has members of several of them."""
        found: dict[str, dict[str, None]] = defaultdict(dict)
        for one in need(self.domains):
            for member in one.members:
                if member.clique:
                    found[member.clique][one.name] = None
        return {clique: tuple(names) for clique, names in found.items() if len(names) > 1}

    def other_clique(self, member: Member) -> Reading[str | None]:
        """Return the NVLink partition that a member's node carries as a label, None if it has none or the same one."""

        def derive() -> str | None:
            node = need(self.cluster.nodes_by_name).get(member.node)
            label = need(node.labels).get(CLIQUE_LABEL, "") if node is not None else ""
            return label if label and member.clique and label != member.clique else None

        return attempt(derive)


def manages_imex(node: "Node") -> Reading[bool]:
    """Return whether the DRA driver runs the IMEX daemons of a node itself, by the plugin's pod that is there."""

    def derive() -> bool:
        pods = node.pods
        if is_not_asked(pods):
            return False
        plugins = (pod for pod in need(pods) if need(pod.component) is Component.DRA_KUBELET_PLUGIN)
        return any(runs_imex(need(pod.object).spec) for pod in plugins)

    return attempt(derive)


def host_imex_runs(node: "Node") -> Reading[bool]:
    """Return whether the host's own IMEX service runs; False where its services were not asked for.

    By systemd's word alone: the list of processes shows the daemons of ComputeDomains' pods under the same name.
    """

    def derive() -> bool:
        unit = node.driver.services.unit(IMEX)
        found = None if is_not_asked(unit) else need(unit)
        return found is not None and found.state in {"active", "reloading", "activating"}

    return attempt(derive)


def lacks_channels(node: "Node") -> Reading[bool]:
    """Return whether the driver has registered no IMEX channels; False where that was not asked for.

    Source: /proc/devices; dra-driver-nvidia-gpu, cmd/compute-domain-kubelet-plugin/nvlib.go.
    """
    registered = attempt(lambda: majors(node.host))
    return attempt(lambda: not is_not_asked(registered) and _CHANNELS not in need(registered))
