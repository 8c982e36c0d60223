"""Device-plugin layer: something serves GPUs, and exactly one thing serves each resource on a node."""

from kube_gpucheck.evidence import Cluster, Node, coverage
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity


@check("PLG-001", layer=Layer.DEVICE_PLUGIN, severity=Severity.CRITICAL)
def check_something_serves_gpus(cluster: Cluster) -> None:
    """Something serves GPUs: a device plugin, a service of the node's image, or the DRA driver.

    Whether it works is the business of PLG-002 to PLG-005 and DRA-001.
    """
    if known(coverage.servers(cluster), "what serves GPUs"):
        return
    nodes = known(cluster.gpu_nodes, "the nodes with a GPU")
    if not nodes:
        not_applicable("no node carries a sign of an NVIDIA GPU; CLU-003 judges that")
    left = [f"{node.name} has {known(node.plugin.offer, 'what the node offers')}" for node in nodes]
    fault(
        seen=f"no device plugin and no DRA driver runs here; GPU nodes: {'; '.join(left[:5])}",
        means="nothing tells the kubelets of the GPUs, so no pod can be given one",
        remedy="run 'helm upgrade -i nvdp nvdp/nvidia-device-plugin -n nvidia-device-plugin --create-namespace --set "
        "gfd.enabled=true "
        "--set runtimeClassName=nvidia' (or install the GPU Operator), then 'gpucheck run -k PLG-001'",
    )


@check("PLG-007", layer=Layer.DEVICE_PLUGIN, severity=Severity.MAJOR)
def check_one_plugin_serves_each_resource(node: Node) -> None:
    """Exactly one plugin serves each resource on the node.

    A device plugin beside the DRA driver is DRA-003's.
    """
    pods = known(node.plugin.pods, "the device-plugin pods on the node")
    if not pods:
        not_applicable("no device-plugin pod is on the node; PLG-001 and PLG-002 judge that")
    if len(pods) + len(known(node.plugin.others, "the device-plugin pods on the node")) == 1:
        return
    shared = known(node.plugin.contested, "which resources each plugin serves")
    if shared:
        resource, names = next(iter(shared.items()))
        fault(
            seen=f"{' and '.join(names)} serve {resource} on {node.name}",
            means="the kubelet keeps one endpoint for a resource: the later registration replaces the earlier, and "
            "the end of either takes the GPUs away",
            remedy="keep one of the two: uninstall the chart, set the operator's devicePlugin.enabled=false, or label "
            "a GKE node pool "
            "gke-no-default-nvidia-gpu-device-plugin=true; delete the pod of the one that stays, then run 'gpucheck "
            "run -k PLG-007'",
        )
