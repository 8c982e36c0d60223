"""DRA layer: NVIDIA's DRA driver runs where it should, and publishes every GPU once."""

from typing import Final

from kube_gpucheck.evidence import Cluster, DaemonSet, Node, claims, podstate
from kube_gpucheck.evidence.dra import (
    DOMAIN_CLASSES,
    DOMAIN_DRIVER,
    GPU_CLASS,
    GPU_DRIVER,
    USABLE,
    Device,
    runs_imex,
    strangers,
    unlisted,
)
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity

SHOWN: Final = 5
"""How many nodes or devices a finding lists."""


@check(
    "DRA-001",
    layer=Layer.DRA,
    severity=Severity.MAJOR,
    after=(
        "CLU-004",
        "CLU-005",
        "DSC-002",
        "PLG-013",
        "PLG-014",
        "RTM-011",
        "RTM-016",
        "RTM-017",
        "DRV-003",
        "DRV-004",
        "DRV-005",
        "OPR-003",
    ),
)
def check_dra_driver_runs(cluster: Cluster) -> None:
    """`resource.k8s.io` is served, and the kubelet plugin of NVIDIA's DRA driver is Ready on each GPU node.

    A node that a device plugin or a service of its image serves does not count, nor one from which a person keeps the
    driver by label. What the plugin publishes is DRA-002's.
    """
    plugins = known(cluster.dra.plugins, "the DaemonSets")
    if not plugins:
        _judge_absence(cluster)
    versions = known(cluster.dra.versions, "which API groups are served")
    if not versions:
        fault(
            seen=f"{plugins[0].subject} is installed, and resource.k8s.io is not served in any of {', '.join(USABLE)}",
            means="the driver cannot publish GPUs, and nobody can claim them",
            remedy="use Kubernetes 1.34 or later, where resource.k8s.io/v1 is on; before that, switch on the feature "
            "gate DynamicResourceAllocation and the API server's --runtime-config=resource.k8s.io/v1beta1=true; then "
            "run 'gpucheck run -k DRA-001'",
        )
    absent = known(cluster.dra.absent, "which GPU nodes the DRA driver's kubelet plugin may run on")
    if absent:
        first = absent[0]
        fault(
            seen=f"no kubelet plugin of the DRA driver may run on {', '.join(one.node for one in absent[:SHOWN])}"
            f"{f' and {len(absent) - SHOWN} more GPU nodes' if len(absent) > SHOWN else ''}: {first.reason}",
            means="the GPUs of these nodes cannot be claimed, and nothing else serves them",
            remedy=f"give the node what {plugins[0].subject} asks for ({', '.join(first.keys)}), or set the chart's "
            "kubeletPlugin.affinity or kubeletPlugin.tolerations; then run 'gpucheck run -k DRA-001'",
            nodes=(one.node for one in absent),
        )
    for plugin in plugins:
        _judge_pods(plugin)


def _judge_absence(cluster: Cluster) -> None:
    pods = known(claims.pods_that_claim(cluster), "which pods claim devices")
    if not pods:
        not_applicable("no DRA driver of NVIDIA's is installed, and no pod claims its devices")
    names = ", ".join(f"{one.namespace}/{one.name}" for one in pods[:SHOWN])
    fault(
        seen=f"{names} claim NVIDIA's devices, and no DRA driver of NVIDIA's is installed",
        means="nothing publishes the GPUs, so the claims cannot be allocated",
        remedy="install the DRA driver (chart dra-driver-nvidia-gpu), or ask for nvidia.com/gpu where the device "
        "plugin serves; then run 'gpucheck run -k DRA-001'",
    )


def _judge_pods(plugin: DaemonSet) -> None:
    wanted = known(plugin.object, "the DaemonSet").status.desired_number_scheduled
    pods = known(podstate.live_pods(plugin), "its pods")
    unready = [pod for pod in pods if not known(pod.is_ready, "whether the pod is Ready")]
    if unready:
        pod = unready[0]
        facts = known(podstate.troubles(pod), "the pod's state")
        fault(
            seen=f"{len(unready)} of {len(pods)} pods of {plugin.subject} are not Ready, the first is "
            f"{pod.namespace}/{pod.name} on {pod.node_name}: {'; '.join(facts) or 'its status gives no reason'}",
            means="the GPUs of these nodes are not published, and claims that they hold cannot be prepared",
            remedy=f"mend what its status or log names, then run 'kubectl -n {pod.namespace} delete pod {pod.name}' "
            "and 'gpucheck run -k DRA-001'",
            nodes=(one.node_name for one in unready),
        )
    if len(pods) < wanted:
        fault(
            seen=f"{plugin.subject} wants {wanted} pod{'' if wanted == 1 else 's'} and has {len(pods)}",
            means="its pods are not created, or have just been deleted; PLG-013 names a refusal",
            remedy=f"run 'kubectl -n {plugin.namespace} describe daemonset {plugin.name}' for the reason, mend it, "
            "then run 'gpucheck run -k DRA-001'",
        )


@check(
    "DRA-002",
    layer=Layer.DRA,
    severity=Severity.MAJOR,
    after=("DRA-001", "DRV-001", "DRV-003", "DRV-005", "DRV-006", "DRV-007", "RTM-016"),
)
def check_slices_list_each_gpu(node: Node) -> None:
    """ResourceSlices list each GPU of the node: whole, as its MIG devices, or for virtual machines.

    Compared by UUID with what NVML lists; MIG devices that could be made stand for their GPU. Where the host was not
    read, the count that GPU Feature Discovery labels must do.
    """
    dra = node.cluster.dra
    if not known(dra.plugins, "the DaemonSets") and not known(dra.offering, "the ResourceSlices"):
        not_applicable("no DRA driver of NVIDIA's is installed")
    meant = known(dra.gpu_half_on(node), "which nodes the DRA driver's kubelet plugin may run on")
    pools = known(dra.gpu_pools(node), "the ResourceSlices")
    if not meant and not pools:
        not_applicable("the DRA driver gives out no GPUs on this node; DRA-001 judges whether it should")
    devices = [one for pool in pools for one in pool.devices]
    if not devices:
        fault(
            seen=f"{'the ResourceSlice' if pools else 'no ResourceSlice'} of {GPU_DRIVER} {'lists' if pools else 'is'} "
            f"{'no device' if pools else 'there'} for {node.name}",
            means="the kubelet plugin has found no GPU: it looks once, when it starts, and finds none before the "
            "driver is there",
            remedy="delete the kubelet plugin's pod on the node, which looks again; if it stays empty, its log names "
            "the driver root that it looks in; then run 'gpucheck run -k DRA-002'",
        )
    _judge_listed(node, devices)


def _judge_listed(node: Node, devices: list[Device]) -> None:
    if is_not_asked(node.gpus):
        _judge_count(node, devices)
        return
    lost = known(unlisted(node), "the GPUs of the node")
    if lost:
        undivided = any(known(node.driver.mig_is_on(one), "whether MIG is on") for one in lost if one.index is not None)
        fault(
            seen=f"the ResourceSlices of {node.name} do not list "
            f"{', '.join(one.uuid or str(one.address) for one in lost[:SHOWN])}; they list "
            f"{', '.join(one.name for one in devices[:SHOWN])}",
            means="MIG is on and no MIG device was there when the kubelet plugin started, so it offers nothing of it"
            if undivided
            else "the kubelet plugin did not see the GPU when it started, so nobody can claim it",
            remedy=f"{_DIVIDE if undivided else ''}delete the kubelet plugin's pod on the node, which looks again; "
            "then run 'gpucheck run -k DRA-002'",
        )
    strange = known(strangers(node), "the GPUs of the node")
    if strange:
        fault(
            seen=f"the ResourceSlices of {node.name} list {', '.join(map(_told, strange[:SHOWN]))}, which the node "
            "does not have",
            means="a claim may be given a GPU that is not there: the slice is older than a change of the hardware",
            remedy="delete the kubelet plugin's pod on the node, which publishes anew; then run 'gpucheck run -k "
            "DRA-002'",
        )


_DIVIDE: Final = "create MIG devices ('nvidia-smi mig -cgi …') or switch MIG off, then "


def _judge_count(node: Node, devices: list[Device]) -> None:
    count = known(node.labels, "the node's labels").get("nvidia.com/gpu.count", "")
    if not count.isdigit():
        known(node.gpus, "the GPUs of the node")
    listed = len({one.stands_for for one in devices})
    if listed < int(count):
        fault(
            seen=f"the ResourceSlices of {node.name} list {listed} of the {count} GPUs that its label "
            "nvidia.com/gpu.count names",
            means="the kubelet plugin did not see all GPUs when it started",
            remedy="delete the kubelet plugin's pod on the node, which looks again; then run 'gpucheck run -k DRA-002'",
        )


def _told(device: Device) -> str:
    return f"{device.name} ({', '.join(sorted(device.stands_for))})"


@check("DRA-003", layer=Layer.DRA, severity=Severity.MAJOR, after=("DRA-001",))
def check_classes_exist_and_gpus_are_served_once(cluster: Cluster) -> None:
    """The DeviceClasses of the installed halves exist, and no GPU is served by a device plugin as well.

    A node counts as served twice where a device plugin has GPUs in allocatable and ResourceSlices list GPUs or MIG
    devices. Classes of one's own do as well as the chart's, but for those that ComputeDomains ask for by name.
    """
    dra = cluster.dra
    plugins = known(dra.plugins, "the DaemonSets")
    if not plugins:
        not_applicable("no DRA driver of NVIDIA's is installed")
    if not known(dra.versions, "which API groups are served"):
        not_applicable("resource.k8s.io is not served; DRA-001 judges that")
    halves = known(dra.halves, "the DRA driver's kubelet plugin")
    classes = known(dra.classes, "the DeviceClasses")
    missing = []
    if GPU_DRIVER in halves and not known(dra.gpu_classes, "the DeviceClasses"):
        missing.append(GPU_CLASS)
    if DOMAIN_DRIVER in halves:
        own = any(runs_imex(known(one.object, "the DaemonSet").spec.template.spec) for one in plugins)
        missing.extend(name for name in DOMAIN_CLASSES[0 if own else 1 :] if name not in classes)
    if missing:
        fault(
            seen=f"{plugins[0].subject} is installed, and there is no DeviceClass "
            f"{' and no '.join(repr(name) for name in missing)}; the cluster has "
            f"{', '.join(repr(name) for name in sorted(classes)[:SHOWN]) or 'none'}",
            means="a claim names a class, so nothing can be claimed of that half of the driver",
            remedy="run 'helm upgrade' of the DRA driver's chart, which makes its classes, then 'gpucheck run -k "
            "DRA-003'",
        )
    _judge_twice(cluster)


def _judge_twice(cluster: Cluster) -> None:
    twice = []
    for node in known(cluster.gpu_nodes, "the nodes with a GPU"):
        if node.name not in known(cluster.dra.offering, "the ResourceSlices"):
            continue
        count = sum(known(node.allocatable, "what the node offers").values())
        devices = [
            one
            for pool in known(cluster.dra.gpu_pools(node), "the ResourceSlices")
            for one in pool.devices
            if one.is_gpu
        ]
        if count and devices:
            offered = ", ".join(f"{number} {name}" for name, number in known(node.allocatable, "").items() if number)
            twice.append((node.name, f"{node.name} offers {offered} and {len(devices)} devices of {GPU_DRIVER}"))
    if twice:
        more = len(twice) - SHOWN
        fault(
            seen="; ".join(words for _, words in twice[:SHOWN]) + (f"; and {more} more nodes" if more > 0 else ""),
            means="device plugin and DRA driver each count the same GPUs by themselves: the scheduler may admit more "
            "pods than there are GPUs",
            remedy="keep one of the two on each node: the operator's devicePlugin.enabled=false, or the DRA chart's "
            "resources.gpus.enabled=false; then run 'gpucheck run -k DRA-003'",
            nodes=(name for name, _ in twice),
        )
