"""RuntimeClass layer: a class does not keep its pods from the GPUs."""

from kube_gpucheck.evidence import Cluster, Node
from kube_gpucheck.evidence.configuration import names_nvidia
from kube_gpucheck.evidence.documents import RuntimeClassDocument
from kube_gpucheck.evidence.quantity import amount
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity

SHARE = 0.1
"""The part of a node that a class may take for its own overhead before it is worth a word."""


@check("RTC-003", layer=Layer.RUNTIME_CLASS, severity=Severity.MAJOR, after=("RTC-001",))
def check_classes_leave_every_gpu_node_reachable(cluster: Cluster) -> None:
    """The scheduling of each RuntimeClass for NVIDIA leaves every GPU node reachable, and its overhead is sane.

    The scheduler adds a class's node selector and overhead to each of its pods. An overhead that asks for a GPU, or for
    more than a tenth of a node, is minor. Nodes without a handler for it are not counted.
    """
    nodes = [
        node
        for node in known(cluster.gpu_nodes, "the GPU nodes")
        if known(node.deliveries.by_handler, f"how GPUs reach {node.name}'s containers")
    ]
    if not nodes:
        not_applicable("no GPU node gives out its GPUs through a handler of its engine")
    classes = [
        one
        for one in known(cluster.runtime_classes, "the RuntimeClasses")
        if names_nvidia(one.handler) or names_nvidia(one.metadata.name)
    ]
    if not classes:
        not_applicable("no RuntimeClass is for NVIDIA; RTC-001 judges that")
    for one in classes:
        left_out = [node for node in nodes if not _is_reached(one, node)]
        selector = dict((one.scheduling.node_selector if one.scheduling else None) or {})
        if left_out:
            fault(
                seen=f"RuntimeClass '{one.metadata.name}' selects nodes by {_pairs(selector)}; "
                f"{', '.join(node.name for node in left_out[:5])} ({len(left_out)} of {len(nodes)} GPU nodes) do not",
                means="no pod of this class is scheduled there, whatever the pod itself selects",
                remedy=f"make the class anew without that selector ('kubectl get runtimeclass {one.metadata.name} -o "
                "yaml', edit, 'kubectl replace --force'), or label the nodes; confirm with 'gpucheck run -k RTC-003'",
            )
    for one in classes:
        _judge_overhead(one, nodes)


def _is_reached(one: RuntimeClassDocument, node: Node) -> bool:
    selector = (one.scheduling.node_selector if one.scheduling else None) or {}
    if not selector:
        return True
    labels = known(node.labels, f"the labels of {node.name}")
    return all(labels.get(key) == value for key, value in selector.items())


def _judge_overhead(one: RuntimeClassDocument, nodes: list[Node]) -> None:
    fixed = (one.overhead.pod_fixed if one.overhead else None) or {}
    for name, value in sorted(fixed.items()):
        if name.startswith("nvidia.com/"):
            why = f"asks for {name}: {value} itself, beside what the pod asks for"
        else:
            least = min(
                (amount(text) for node in nodes if (text := known(node.object, "the node").status.capacity.get(name))),
                default=0,
            )
            if not least or amount(value) <= SHARE * least:
                continue
            why = f"takes {name}: {value} for itself, more than a tenth of the smallest GPU node"
        fault(
            seen=f"RuntimeClass '{one.metadata.name}' has an overhead that {why}",
            means="each pod of the class is counted so much larger, and fewer of them fit",
            remedy=f"make the class anew with a smaller overhead ('kubectl get runtimeclass {one.metadata.name} -o "
            "yaml', edit, 'kubectl replace --force'); confirm with 'gpucheck run -k RTC-003'",
            severity=Severity.MINOR,
        )


def _pairs(selector: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(selector.items()))
