"""Predicates about the cluster, its nodes and the GPU Operator's objects."""

from typing import Any, Final

from kube_gpucheck.diagnose.context import Context
from kube_gpucheck.diagnose.facts.registry import all_nodes, any_node, fact, one_of
from kube_gpucheck.evidence import Node
from kube_gpucheck.evidence.engine import Distribution
from kube_gpucheck.evidence.pci import off_the_bus
from kube_gpucheck.evidence.readings import need
from kube_gpucheck.evidence.scheduling import selection
from kube_gpucheck.evidence.stack import Component
from kube_gpucheck.model import MissingKind, SubjectKind

_POOL_LABELS: Final = ("eks.amazonaws.com/nodegroup", "karpenter.sh/nodepool", "kubernetes.azure.com/agentpool")
_TROUBLES: Final = {"MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"}
_LEASE_S: Final = 40
"""The kubelet's default nodeLeaseDurationSeconds."""
_DEPLOY: Final = "nvidia.com/gpu.deploy."
_SET_BY_OPERATOR: Final = {"true", "pre-installed"}
_NOTHING_FOUND: Final = {"NoGPUNodes", "NFDLabelsMissing"}
_PASSTHROUGH: Final = "vm-passthrough"


@fact
def the_api_refused_or_did_not_answer(context: Context) -> bool:
    """The API server refused a kind that was asked for, or did not answer."""
    return any(
        one.evidence.startswith("api") and one.kind is not MissingKind.NOT_ASKED
        for one in context.cluster.bundle.manifest.missing
    )


@fact
def node_is_not_ready(context: Context) -> bool:
    """The node's condition Ready is not True."""
    return any_node(
        context,
        lambda node: (
            not any(one.type == "Ready" and one.status == "True" for one in need(node.object).status.conditions)
        ),
    )


@fact
def node_is_under_pressure(context: Context) -> bool:
    """A condition other than Ready says that the node is short of memory, disk, processes or network."""
    return any_node(
        context,
        lambda node: any(one.type in _TROUBLES and one.status == "True" for one in need(node.object).status.conditions),
    )


@fact
def node_heartbeat_has_stopped(context: Context) -> bool:
    """The kubelet has not renewed the node's lease for longer than the lease lasts."""

    def stopped(node: Node) -> bool:
        lease = need(node.lease)
        if lease is None or lease.spec.renew_time is None:
            return False
        age = (context.cluster.gathered_at - lease.spec.renew_time).total_seconds()
        return age > 2 * (lease.spec.lease_duration_seconds or _LEASE_S)

    return any_node(context, stopped)


@fact
def node_is_of_a_managed_pool(context: Context) -> bool:
    """A provider's pool starts the node from a machine image (GKE's never have the toolkit, and are not meant)."""
    return any_node(
        context,
        lambda node: (
            any(key in need(node.labels) for key in _POOL_LABELS)
            and need(node.runtime.engine.distribution) is not Distribution.GKE
        ),
    )


@fact
def node_is_meant_for_passthrough(context: Context) -> bool:
    """The node's label nvidia.com/gpu.workload.config asks for VM passthrough."""
    return any_node(context, lambda node: need(node.labels).get("nvidia.com/gpu.workload.config") == _PASSTHROUGH)


@fact
def pci_bus_shows_no_gpu(context: Context) -> bool:
    """No NVIDIA controller is on the PCI bus, and nothing says that the GPU needs none (WSL2, Tegra)."""

    def shows_none(node: Node) -> bool:
        return not need(node.driver.pci_gpus) and off_the_bus(node) is None

    if context.subject.kind is SubjectKind.CLUSTER and not context.nodes:
        nodes = need(context.cluster.nodes)
        return bool(nodes) and not one_of(nodes, lambda node: not shows_none(node))
    return all_nodes(context, shows_none)


@fact
def deploy_label_is_not_true(context: Context) -> bool:
    """An operand's switch label on the node is empty or false while the operand's DaemonSet selects it."""
    return any_node(context, lambda node: any(value in {"", "false"} for value in _switches(context, node)))


@fact
def deploy_label_is_paused(context: Context) -> bool:
    """An operand's switch label on the node is paused for a change."""
    return any_node(context, lambda node: any(value.startswith("paused-for-") for value in _switches(context, node)))


def _switches(context: Context, node: Node) -> tuple[str, ...]:
    """Return the values of the switch labels by which DaemonSets of the stack select this node and that it has."""
    labels = need(node.labels)
    keys = {
        key
        for one in need(context.cluster.stack.daemonsets)
        for key in selection(need(one.object).spec.template.spec)
        if key.startswith(_DEPLOY)
    }
    return tuple(labels[key] for key in sorted(keys) if key in labels)


@fact
def operator_found_no_gpu_node(context: Context) -> bool:
    """The policy object's Ready condition says that no GPU node, or no NFD label, was found."""
    return any(
        one.type == "Ready" and one.reason in _NOTHING_FOUND
        for policy in _policies(context)
        for one in policy.status.conditions or ()
    )


@fact
def operator_brings_the_driver(context: Context) -> bool:
    """A driver container of the GPU Operator serves the node."""
    return any_node(context, lambda node: bool(need(node.deliveries.serving(Component.DRIVER))))


@fact
def operator_brings_the_toolkit(context: Context) -> bool:
    """A toolkit container of the GPU Operator serves the node."""
    return any_node(context, lambda node: bool(need(node.deliveries.serving(Component.TOOLKIT))))


@fact
def operator_wants_a_service_monitor(context: Context) -> bool:
    """The ClusterPolicy asks for a ServiceMonitor of dcgm-exporter."""
    return any(_at(policy.spec, "dcgmExporter", "serviceMonitor", "enabled") is True for policy in _policies(context))


@fact
def service_monitors_are_not_served(context: Context) -> bool:
    """The API serves no ServiceMonitors."""
    return need(context.cluster.items("servicemonitors.monitoring.coreos.com")) is None


def _policies(context: Context) -> tuple[Any, ...]:
    kinds = ("clusterpolicies.nvidia.com", "gpuclusters.nvidia.com")
    return tuple(policy for kind in kinds for policy in need(context.cluster.objects(kind)))


def _at(value: object, *path: str) -> object:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value
