"""RuntimeClass layer: what needs the driver runs where it is given it."""

from kube_gpucheck.evidence import Component, DaemonSet, Node, Pod, workload
from kube_gpucheck.evidence.configuration import names_nvidia
from kube_gpucheck.evidence.delivery import Mode, gives_driver
from kube_gpucheck.evidence.runtime import class_is_nvidia
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Reading, Seen, Severity

_WITHOUT_HANDLER = frozenset({Mode.CDI_ENGINE, Mode.NRI, Mode.OCI_HOOK, Mode.PROVIDER})
_SERVES_WORK = frozenset({Component.DEVICE_PLUGIN, Component.MPS_CONTROL_DAEMON})


def _needs_driver(daemonset: DaemonSet) -> Reading[bool]:
    return Seen(daemonset.component is not None and daemonset.component.needs_driver)


@check(
    "RTC-004", layer=Layer.RUNTIME_CLASS, severity=Severity.CRITICAL, after=("RTC-001", "RTC-002"), among=_needs_driver
)
def check_gpu_daemonset_is_given_the_driver(daemonset: DaemonSet) -> None:
    """Each GPU DaemonSet that needs the driver is given it.

    By runtimeClassName, a default runtime that is NVIDIA's on each node it serves, a CDI or NRI annotation, a
    ResourceClaim, or a driver root that its container mounts. Whether its nodes have the handler is RTC-002's.
    Major where the DaemonSet only labels nodes or reports metrics: GPU work runs without it.
    """
    nodes = _served(daemonset)
    if nodes and not any(
        known(node.deliveries.by_handler, f"how GPUs reach {node.name}'s containers") for node in nodes
    ):
        not_applicable("its nodes give out their GPUs without a handler of the engine")
    template = known(daemonset.object, "the DaemonSet").spec.template
    severity = Severity.CRITICAL if daemonset.component in _SERVES_WORK else Severity.MAJOR
    name = template.spec.runtime_class_name
    if name is not None:
        leads = known(class_is_nvidia(daemonset.cluster, name, nodes), f"where RuntimeClass '{name}' leads")
        if leads:
            return
        what, means = (
            ("which does not exist", "the API server rejects its pods")
            if leads is None
            else ("whose handler is not NVIDIA's", "its pods run under another runtime and do not find the driver")
        )
        fault(
            severity=severity,
            seen=f"its template names RuntimeClass '{name}', {what}",
            means=means,
            remedy="name a RuntimeClass whose handler is the NVIDIA handler in its template; confirm with "
            "'gpucheck run -k RTC-004'",
        )
    if known(gives_driver(daemonset), "what its template asks for"):
        return
    without = [
        node for node in nodes if not known(node.runtime.default_is_nvidia, f"the default runtime of {node.name}")
    ]
    if without or not nodes:
        where = ", ".join(node.name for node in without[:5]) or "no GPU node"
        fault(
            severity=severity,
            seen=f"its template has no runtimeClassName, annotation, claim or driver mount; the default runtime is not "
            f"NVIDIA's on {where}",
            means="its pods run under plain runc and do not find the driver's libraries",
            remedy=f"set runtimeClassName to {_classes(daemonset)} in its template (charts: --set runtimeClassName=…, "
            f"or 'kubectl -n {daemonset.namespace} patch daemonset {daemonset.name}'); confirm with "
            "'gpucheck run -k RTC-004'",
        )


def _holds_gpu(pod: Pod) -> Reading[bool]:
    return workload.was_given_a_gpu(pod)


@check("RTC-005", layer=Layer.RUNTIME_CLASS, severity=Severity.MAJOR, after=("RTC-001", "RTM-003"), among=_holds_gpu)
def check_pod_that_holds_a_gpu_sees_it(pod: Pod) -> None:
    """A running pod that holds a GPU runs under an NVIDIA handler, so that it sees what it was granted.

    One whose program ended badly counts too: it may have missed the driver. Pods that ended well or wait are not
    judged; nor are pods of nodes that give out GPUs without a handler.
    """
    node = known(pod.reached_node, "the pod's node")
    if not known(node.deliveries.by_handler, f"how GPUs reach {node.name}'s containers"):
        not_applicable(f"{node.name} gives out its GPUs without a handler of the engine")
    if known(node.only_dra_serves, f"how GPUs reach {node.name}'s containers"):
        not_applicable(f"the DRA driver gives out the GPUs of {node.name}, by CDI names; RTM-011 judges CDI")
    others = known(node.deliveries.declared, f"how GPUs reach {node.name}'s containers") & _WITHOUT_HANDLER
    if others:
        ways = ", ".join(sorted(one.value for one in others))
        not_applicable(f"{node.name} gives pods their GPUs whatever their handler: {ways}; RTM-011 judges CDI")
    name = known(pod.runtime_class, "the pod's RuntimeClass")
    if name is None:
        under = known(node.runtime.default_is_nvidia, f"the default runtime of {node.name}")
        what = "it names no RuntimeClass, and the default runtime is not NVIDIA's"
    else:
        under = known(class_is_nvidia(pod.cluster, name, (node,)), f"where RuntimeClass '{name}' leads") is True
        what = f"it names RuntimeClass '{name}', which does not lead to NVIDIA's handler"
    if not under:
        held = ", ".join(f"{key}: {count}" for key, count in known(pod.gpu_request, "what it asks for").items())
        fault(
            seen=f"it {'held' if known(pod.is_finished, 'its phase') else 'holds'} {held}; {what}",
            means="the kubelet has granted it a GPU, but neither device nor driver is in its containers",
            remedy="name a RuntimeClass with the NVIDIA handler in the pod and create it anew; confirm with "
            "'gpucheck run -k RTC-005'",
        )


def _served(daemonset: DaemonSet) -> tuple[Node, ...]:
    nodes = known(daemonset.cluster.gpu_nodes, "the GPU nodes")
    chosen = tuple(node for node in nodes if known(daemonset.selects(node), f"whether it serves {node.name}") is None)
    return chosen or nodes


def _classes(daemonset: DaemonSet) -> str:
    classes = known(daemonset.cluster.runtime_classes, "the RuntimeClasses")
    names = [f"'{one.metadata.name}'" for one in classes if names_nvidia(one.handler)]
    return " or ".join(names) or "'nvidia' (make the RuntimeClass first)"
