"""Cluster layer: no pod was handled while nobody served its GPU."""

from kube_gpucheck.evidence import Node
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity


@check("CLU-010", layer=Layer.CLUSTER, severity=Severity.MAJOR)
def check_no_pod_was_handled_before_the_plugin(node: Node) -> None:
    """No pod that holds a GPU was started before the plugin last registered, and so without its GPU.

    A pod that is older than the plugin is well where the kubelet's record gives it devices, and where it is older than
    the kubelet: neither's restart takes anything away. Started by this kubelet, without a device in the record, which
    shows as many free, it was started when the kubelet did not know the resource, and asked nobody. Not judged: pods
    that were refused (PLG-009), and pods of the DRA driver.
    """
    if known(node.only_dra_serves, "how GPUs reach this node's containers"):
        not_applicable("only the DRA driver serves this node; it prepares the devices before a pod starts")
    holdings = node.holdings
    if not known(holdings.started, "the pods that hold GPUs"):
        not_applicable("no container that asks for a GPU runs on this node")
    registered = known(holdings.registered_at, "when the device plugin registered")
    if registered is None:
        not_applicable("no device plugin runs on this node; PLG-004 and PLG-005 judge that")
    empty = known(holdings.empty_handed, "the kubelet's start, and its record of devices")
    if empty:
        began = known(holdings.kubelet_started_at, "the kubelet's start")
        one = empty[0]
        others = f", and {len(empty) - 1} more" if len(empty) > 1 else ""
        fault(
            seen=f"container {one.container} of {one.pod} asks for {one.resource} and runs since {one.at:%H:%M:%SZ}"
            f"{others}; the kubelet started at {began:%H:%M:%SZ}, the plugin registered at {registered:%H:%M:%SZ}, and "
            "the kubelet's record has no device for it",
            means="the kubelet started it while no plugin served the resource, as after a reboot or a lost record: it "
            "counts as holding a GPU and has none",
            remedy=f"delete {one.pod} so that it is started anew (leave 'kubelet_internal_checkpoint' alone), then run "
            "'gpucheck run -k CLU-010'",
        )
