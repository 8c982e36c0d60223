"""RuntimeClass layer: a class leads to the NVIDIA handler, on the nodes where it is used."""

from typing import NoReturn

from kube_gpucheck.evidence import Cluster, Node
from kube_gpucheck.evidence.configuration import names_nvidia
from kube_gpucheck.evidence.documents import RuntimeClassDocument
from kube_gpucheck.evidence.engine import not_asked
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity


@check("RTC-001", layer=Layer.RUNTIME_CLASS, severity=Severity.CRITICAL)
def check_class_for_nvidia_exists(cluster: Cluster) -> None:
    """A RuntimeClass whose handler is the NVIDIA handler exists, or NVIDIA is the default runtime on every GPU node.

    Where no node's engine has a handler for NVIDIA, or none was read, the handler's name must do: RTM-003 and RTC-002
    judge the nodes.
    """
    nodes = [
        node
        for node in known(cluster.gpu_nodes, "the GPU nodes")
        if known(node.deliveries.by_handler, f"how GPUs reach {node.name}'s containers")
    ]
    if not nodes:
        not_applicable("no GPU node gives out its GPUs through a handler of its engine")
    classes = known(cluster.runtime_classes, "the RuntimeClasses")
    _judge_named(cluster, classes)
    configured: set[str] = set()
    for node in nodes:
        if not_asked(node.runtime.configuration):
            continue
        have = {one.name for one in known(node.runtime.configuration, f"the configuration of {node.name}").nvidia}
        if any(one.handler in have for one in classes):
            return
        configured |= have
    if not configured and any(names_nvidia(one.handler) for one in classes):
        return
    if all(known(node.runtime.default_is_nvidia, f"the default runtime of {node.name}") for node in nodes):
        return
    known_as = ", ".join(f"'{name}'" for name in sorted(configured)) or "none"
    named = ", ".join(f"'{one.metadata.name}' (handler '{one.handler}')" for one in classes) or "none"
    fault(
        seen=f"RuntimeClasses: {named}; the nodes' handlers for NVIDIA: {known_as}; it is not the default everywhere",
        means="a pod cannot ask for the NVIDIA runtime, and does not get it unasked",
        remedy=_apply(min(configured) if configured else "nvidia"),
    )


@check("RTC-002", layer=Layer.RUNTIME_CLASS, severity=Severity.CRITICAL, after=("RTC-001", "RTM-003", "RTM-005"))
def check_handlers_of_classes_in_use_are_configured(node: Node) -> None:
    """The handler of each NVIDIA RuntimeClass that a pod or DaemonSet uses is configured where it may land.

    Classes that nobody uses here are not judged (K3s and RKE2 ship some). A class that does not exist is RTC-001's.
    """
    if not known(node.deliveries.by_handler, "how GPUs reach this node's containers"):
        not_applicable("this node's containers get their GPUs without a handler of the engine")
    used = known(node.deliveries.classes_in_use, "the RuntimeClasses in use")
    if not used:
        not_applicable("no pod or DaemonSet of this node uses an NVIDIA RuntimeClass")
    if not_asked(node.runtime.handler_names):
        _judge_by_pods(node, used)
        return
    names = known(node.runtime.handler_names, "the handlers of the engine")
    for one in used:
        if one.handler not in names:
            _fault_of(node, one, f"the node's handlers are {', '.join(sorted(names)) or 'none'}")


def _judge_by_pods(node: Node, used: tuple[RuntimeClassDocument, ...]) -> None:
    refused = known(node.runtime.refused_handlers, "the handlers that the engine did not know")
    running = known(node.deliveries.classes_running, "the RuntimeClasses that pods run under")
    for one in used:
        if one.handler in refused:
            _fault_of(node, one, refused[one.handler])
    if any(one.metadata.name not in running for one in used):
        known(node.runtime.handler_names, "the handlers of the engine")


def _fault_of(node: Node, one: RuntimeClassDocument, why: str) -> NoReturn:
    if known(node.deliveries.toolkit_waits, "what the GPU Operator's toolkit does"):
        not_applicable(
            "the GPU Operator's toolkit, which writes the handler, waits for the driver; DRV-003 judges that"
        )
    fault(
        seen=f"RuntimeClass '{one.metadata.name}' has handler '{one.handler}', which {node.name} does not have: {why}",
        means=f'a pod of this class gets no sandbox here: no runtime for "{one.handler}" is configured',
        remedy="make the class anew with a handler that the node has, or give the node this handler: "
        f"{node.runtime.engine.configure}; confirm with 'gpucheck run -k RTC-002'",
    )


def _judge_named(cluster: Cluster, classes: tuple[RuntimeClassDocument, ...]) -> None:
    exist = {one.metadata.name for one in classes}
    for daemonset in known(cluster.stack.daemonsets, "the DaemonSets of the GPU stack"):
        name = known(daemonset.object, "the DaemonSet").spec.template.spec.runtime_class_name
        if name is not None and name not in exist:
            fault(
                seen=f"DaemonSet {daemonset.namespace}/{daemonset.name} names RuntimeClass '{name}'; "
                f"the cluster has {', '.join(sorted(exist)) or 'none'}",
                means="the API server rejects every pod that names a RuntimeClass that does not exist",
                remedy=_apply(name),
            )


def _apply(name: str) -> str:
    return (
        f"apply a RuntimeClass (apiVersion node.k8s.io/v1) named '{name}' with handler '{name}', and name it in the "
        "GPU pods; confirm with 'gpucheck run -k RTC-001'"
    )
