"""Predicates about dynamic resource allocation: NVIDIA's DRA driver, what is claimed of it, ComputeDomains."""

from kube_gpucheck.diagnose.context import Context
from kube_gpucheck.diagnose.facts.registry import any_node, fact
from kube_gpucheck.evidence import Node
from kube_gpucheck.evidence.claims import Lack, shortage
from kube_gpucheck.evidence.computedomain import host_imex_runs, manages_imex
from kube_gpucheck.evidence.dra import GPU_DRIVER, unlisted
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.readings import need

_FITS_NOT = frozenset({Lack.CLASS, Lack.MATCH, Lack.TAINT, Lack.NUMBER, Lack.USE})


@fact
def dra_driver_is_installed_and_its_api_is_not_served(context: Context) -> bool:
    """NVIDIA's DRA driver is installed, and no version of resource.k8s.io that it can use is served."""
    dra = context.cluster.dra
    return bool(need(dra.plugins)) and not need(dra.versions)


@fact
def dra_driver_is_installed_without_its_gpu_half(context: Context) -> bool:
    """NVIDIA's DRA driver is installed, and none of its kubelet plugins gives out GPUs."""
    halves = need(context.cluster.dra.halves)
    return bool(halves) and GPU_DRIVER not in halves


def _lacks(context: Context, *lacks: Lack) -> bool:
    found = need(shortage(context.pod)) if context.pod is not None else None
    return found is not None and found.lack in lacks


@fact
def the_claim_finds_no_class_or_no_device(context: Context) -> bool:
    """The pod's claim names a class that is not there, or of which no device is published."""
    return _lacks(context, Lack.CLASS, Lack.DEVICE)


@fact
def the_claim_fits_no_free_device(context: Context) -> bool:
    """Devices are published, and none that is free fits what the pod's claim asks for."""
    return _lacks(context, *_FITS_NOT) and bool(need(context.cluster.dra.devices))


@fact
def claimed_devices_are_on_nodes_that_the_pod_does_not_select(context: Context) -> bool:
    """The devices that fit the pod's claim are on nodes that its selector or affinity excludes."""
    found = need(shortage(context.pod)) if context.pod is not None else None
    return found is not None and found.lack is Lack.NODE and not found.by_taint


@fact
def gpus_are_served_by_a_device_plugin_and_by_dra(context: Context) -> bool:
    """A node has GPUs in allocatable, and a ResourceSlice lists GPUs of it."""
    offering = need(context.cluster.dra.offering)

    def twice(node: Node) -> bool:
        if node.name not in offering or not any(need(node.allocatable).values()):
            return False
        return any(one.is_gpu for pool in need(context.cluster.dra.gpu_pools(node)) for one in pool.devices)

    return any_node(context, twice)


@fact
def a_resource_slice_lists_fewer_gpus_than_there_are(context: Context) -> bool:
    """The DRA driver has published a node's GPUs, and not all of them."""

    def fewer(node: Node) -> bool:
        pools = need(context.cluster.dra.gpu_pools(node))
        if not pools:
            return False
        if not any(pool.devices for pool in pools):
            return True
        return not is_not_asked(node.gpus) and bool(need(unlisted(node)))

    return any_node(context, fewer)


@fact
def two_compute_domains_share_a_partition(context: Context) -> bool:
    """Two ComputeDomains have nodes in one NVLink partition."""
    return bool(need(context.cluster.compute_domains.shared_cliques))


@fact
def a_node_of_a_compute_domain_is_not_ready(context: Context) -> bool:
    """A node of a ComputeDomain is not Ready."""
    return any(not member.is_ready for one in need(context.cluster.compute_domains.domains) for member in one.members)


@fact
def host_imex_runs_beside_the_dra_driver(context: Context) -> bool:
    """The host's service nvidia-imex runs on a node whose IMEX daemons the DRA driver runs."""
    return any_node(context, lambda node: need(manages_imex(node)) and need(host_imex_runs(node)))
