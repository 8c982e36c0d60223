"""Predicates about one pod: what it asks for, what it waits for, what it was refused."""

from collections.abc import Iterable

from kube_gpucheck.diagnose.context import Context
from kube_gpucheck.diagnose.facts.registry import any_node, fact
from kube_gpucheck.evidence import Node, Pod
from kube_gpucheck.evidence.allocation import Fit, Wait, nvidia_resources, refused_request, unserved_request, wait_of
from kube_gpucheck.evidence.partition import kinds_that_hide_each_other
from kube_gpucheck.evidence.readings import need
from kube_gpucheck.model import Seen


def _wait(context: Context) -> Wait | None:
    """Return why the pod is not placed, None where the subject is no pod that asks for GPUs and waits."""
    pod = context.pod
    if pod is None or pod.node_name is not None or not need(pod.gpu_request):
        return None
    return need(wait_of(pod))


def _has(context: Context, *fits: Fit) -> bool:
    wait = _wait(context)
    return wait is not None and bool(wait.of(*fits))


@fact
def pod_waits_for_gpus_that_others_hold(context: Context) -> bool:
    """A node could take the pod if other pods did not hold its GPUs."""
    return _has(context, Fit.IN_USE)


@fact
def pod_asks_for_more_than_any_node_has(context: Context) -> bool:
    """No node has as many GPUs as the pod asks for, even when idle, though one serves the resource."""
    wait = _wait(context)
    return (
        wait is not None
        and bool(wait.of(Fit.TOO_SMALL))
        and not wait.of(*(set(Fit) - {Fit.TOO_SMALL, Fit.NOT_OFFERED}))
    )


@fact
def gpus_are_capacity_but_not_allocatable(context: Context) -> bool:
    """A node has the GPUs in capacity, and too few of them allocatable."""
    return _has(context, Fit.OUT_OF_SERVICE)


@fact
def a_node_with_the_gpus_is_cordoned(context: Context) -> bool:
    """A node that has the GPUs is cordoned."""
    return _has(context, Fit.CORDONED)


@fact
def node_is_cordoned(context: Context) -> bool:
    """The node is cordoned; for a pod: a node that has what it asks for is."""
    if context.pod is not None:
        return _has(context, Fit.CORDONED)
    return any(need(node.object).spec.unschedulable for node in context.nodes)


@fact
def the_node_with_the_gpus_is_excluded_by_a_taint(context: Context) -> bool:
    """A node that has the GPUs repels the pod by a taint that it does not tolerate."""
    wait = _wait(context)
    return wait is not None and any(one.rule == "taint" for one in wait.of(Fit.EXCLUDED))


@fact
def pod_selects_no_node_with_the_gpus(context: Context) -> bool:
    """The pod's selector or affinity excludes the nodes that have the GPUs."""
    wait = _wait(context)
    return wait is not None and any(one.rule not in {"taint", ""} for one in wait.of(Fit.EXCLUDED))


@fact
def pod_asks_for_a_name_that_no_node_serves(context: Context) -> bool:
    """The pod asks for a GPU resource that no node serves, while others are served or the name is no usual one."""
    found = need(unserved_request(context.pod)) if context.pod is not None else None
    return found is not None and not found.not_yet


@fact
def pod_asks_for_the_plain_name_of_a_shared_resource(context: Context) -> bool:
    """The pod asks for a resource that nodes serve under its shared name only."""
    found = need(unserved_request(context.pod)) if context.pod is not None else None
    if found is None:
        return False
    return any(found.resource in _renamed(node) for node in _listed(context))


def _renamed(node: Node) -> frozenset[str]:
    """Return the resources that this node offers under another name because they are shared."""
    offered = nvidia_resources(need(node.object).status.allocatable)
    by_suffix = {name.removesuffix(".shared") for name, count in offered.items() if count and name.endswith(".shared")}
    config = node.plugin.config
    shared = config.value.sharing.resources if isinstance(config, Seen) else ()
    return frozenset(by_suffix | {one.name for one in shared if one.offered != one.name and offered.get(one.offered)})


@fact
def pod_asks_for_several_shares_that_are_refused(context: Context) -> bool:
    """The pod asks for several shares of a resource whose plugin refuses more than one."""
    return context.pod is not None and need(refused_request(context.pod)) is not None


@fact
def a_container_asks_for_several_kinds_of_mig_devices(context: Context) -> bool:
    """A container of the pod asks for several kinds of MIG devices, of which the last hides the others."""
    return context.pod is not None and need(kinds_that_hide_each_other(context.pod)) is not None


@fact
def some_gpu_resource_is_served(context: Context) -> bool:
    """Some node has a GPU resource allocatable."""
    return any(any(nvidia_resources(need(node.object).status.allocatable).values()) for node in _listed(context))


def _listed(context: Context) -> Iterable[Node]:
    """Yield the nodes that have a Node object."""
    return (node for node in need(context.cluster.nodes) if isinstance(node.object, Seen))


@fact
def pod_asks_for_no_gpu(context: Context) -> bool:
    """The pod asks for no GPU."""
    return context.pod is not None and not need(context.pod.gpu_request)


@fact
def pod_holds_gpus(context: Context) -> bool:
    """The pod asks for GPUs and is bound to a node."""
    return context.pod is not None and context.pod.node_name is not None and bool(need(context.pod.gpu_request))


@fact
def gpus_of_the_pods_node_are_held(context: Context) -> bool:
    """Running pods hold every GPU that the pod's node has of what it asks for."""
    pod = context.pod
    return pod is not None and pod.node is not None and _are_held(pod, pod.node)


def _are_held(pod: Pod, node: Node) -> bool:
    held = need(node.kubelet.holders)
    allocatable = nvidia_resources(need(node.object).status.allocatable)
    return any(
        sum(number for one, number in held.get(name, ()) if one is not pod) + count > allocatable.get(name, 0)
        for name, count in need(pod.gpu_request).items()
    )


@fact
def a_pod_runs_without_the_devices_that_it_holds(context: Context) -> bool:
    """A container was started before the plugin registered, and the kubelet's record has no device for it."""
    return any_node(context, lambda node: bool(need(node.holdings.empty_handed)))


@fact
def quota_key_lacks_its_prefix(context: Context) -> bool:
    """A ResourceQuota limits a GPU resource by a key that counts nothing."""
    return any(
        key.startswith("nvidia.com/")
        for quota in need(context.cluster.objects("resourcequotas"))
        for key in quota.spec.hard or {}
    )
