"""Discovery layer: each GPU node carries the labels by which it is selected, and they are true."""

from collections.abc import Mapping

from kube_gpucheck.evidence import Node, nvml
from kube_gpucheck.evidence.discovery import PCI_LABEL
from kube_gpucheck.evidence.readings import attempt
from kube_gpucheck.evidence.stack import DEPLOY_PREFIX
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity

SHOWN = 5
_PRODUCT = "nvidia.com/gpu.product"
_AGAIN = "once a pod of it is Ready there, run 'gpucheck run -k DSC-004'"


@check("DSC-002", layer=Layer.DISCOVERY, severity=Severity.CRITICAL, after=("DSC-001",))
def check_node_is_selected_by_the_gpu_daemonsets(node: Node) -> None:
    """Each GPU node satisfies at least one term of each GPU DaemonSet's selection.

    By labels alone; taints are CLU-005's. Where a component has several DaemonSets (a provider's, one for each
    kind of node) one of them is enough. NFD's own workers are DSC-001's. A node that somebody keeps free of the
    operator's operands is not missed.
    """
    found = known(node.cluster.stack.unselected(node), f"which GPU DaemonSets select {node.name}")
    if not found.selecting:
        not_applicable("no GPU DaemonSet selects nodes by label")
    if not found.missed:
        return
    labels = known(node.labels, "the node's labels")
    first, why = found.missed[0]
    others = [str(one.subject) for one, _ in found.missed[1:]]
    also = f"; so {'does' if len(others) == 1 else 'do'} {', '.join(others[:SHOWN])}" if others else ""
    fault(
        seen=f"{first.subject} needs {why.wanted}; {node.name} has {why.found}{also}; {_discovery(node)}",
        means=_meaning(why.keys, labels),
        remedy=_mend(node, why.keys, labels),
    )


def _discovery(node: Node) -> str:
    workers = known(node.cluster.stack.nfd_workers, "the NFD workers")
    if not workers:
        return "no Node Feature Discovery is installed"
    barred = [
        one for one in workers if known(one.rejection(node), "whether NFD's worker may run on the node") is not None
    ]
    return f"NFD's worker {workers[0].subject} may {'not ' if len(barred) == len(workers) else ''}run on this node"


def _other_form(keys: tuple[str, ...], labels: Mapping[str, str]) -> str | None:
    """Return NFD's label of an NVIDIA function in a form that nobody selects, None if there is none."""
    if not any(PCI_LABEL.fullmatch(key) for key in keys):
        return None
    return next((key for key, value in sorted(labels.items()) if PCI_LABEL.fullmatch(key) and value == "true"), None)


def _meaning(keys: tuple[str, ...], labels: Mapping[str, str]) -> str:
    other = _other_form(keys, labels)
    if other is not None:
        return f"Node Feature Discovery labels this GPU in another form ({other}=true) than the DaemonSet selects"
    setters: dict[str, list[str]] = {}
    for key in keys:
        setters.setdefault(_setter(key), []).append(key)
    told = "; ".join(f"{who} sets {' and '.join(set_by)}" for who, set_by in setters.items())
    return f"the label is missing, so no pod is wanted on this node; {told}"


def _setter(key: str) -> str:
    """Return who sets a label. Sources: upstream-facts §1.1, §1.5, §2, §5, §8."""
    if key == "nvidia.com/gpu.present":
        return "the GPU Operator or a person"
    if key.startswith(DEPLOY_PREFIX):
        return "the GPU Operator, on nodes that NFD labelled,"
    if key.startswith("feature.node.kubernetes.io/"):
        return "Node Feature Discovery"
    if key.startswith("nvidia.com/"):
        return "GPU Feature Discovery"
    if key.startswith(("cloud.google.com/", "eks.amazonaws.com/", "k8s.amazonaws.com/", "kubernetes.azure.com/")):
        return "the provider, on its GPU node pools,"
    return "a person"


def _mend(node: Node, keys: tuple[str, ...], labels: Mapping[str, str]) -> str:
    then = "then run 'gpucheck run -k DSC-002'"
    by_hand = f"'kubectl label node {node.name} nvidia.com/gpu.present=true'"
    if _other_form(keys, labels) is not None:
        return f"set NFD's 'sources.pci.deviceLabelFields' to [vendor], {then}"
    if any(key.startswith(DEPLOY_PREFIX) for key in keys):
        return f"look why the operator does not label the node (OPR-001, and whether NFD labelled it), {then}"
    if "nvidia.com/gpu.present" in keys and known(node.cluster.stack.nfd_workers, "the NFD workers"):
        return f"look why NFD does not label this node (DSC-001), or run {by_hand}, {then}"
    if "nvidia.com/gpu.present" in keys:
        return f"install the chart with 'gfd.enabled=true', which brings NFD, or run {by_hand}, {then}"
    return f"let whoever sets the label run, or set it by hand ('kubectl label node {node.name} KEY=VALUE'), {then}"


@check("DSC-004", layer=Layer.DISCOVERY, severity=Severity.MAJOR, after=("DSC-003", "DSC-010", "DRV-005"))
def check_node_carries_gfds_labels(node: Node) -> None:
    """Each GPU node carries the label set of this GFD version and MIG strategy.

    Count, product, family and compute capability are not empty. Not judged: values (DSC-005), age (DSC-006),
    and what is normal: machine or mode 'unknown', an empty revision, no memory where NVML tells none.
    """
    if not known(node.cluster.stack.feature_discoveries, "the GFD DaemonSets"):
        not_applicable("GPU Feature Discovery is not installed")
    found = known(node.cluster.features.labels_of(node), "GFD's labels")
    if found is None:
        not_applicable("somebody keeps the operator's operands, and so GFD, off this node by label")
    version = ".".join(map(str, found.version)) if found.version else "of unknown version"
    if found.missing:
        shown = ", ".join(found.missing[:SHOWN])
        more = f" and {len(found.missing) - SHOWN} more" if len(found.missing) > SHOWN else ""
        lacks = f"{len(found.missing)} of the {len(found.wanted)} labels"
        fault(
            seen=f"{node.name} lacks {lacks} that GFD {version} writes: {shown}{more}",
            means="GFD has written none of its labels for this node"
            if len(found.missing) == len(found.wanted)
            else "another GFD wrote the labels that are there, or this one could not ask the driver everything",
            remedy=f"look at the log of {found.daemonset}'s pod on {node.name}; {_AGAIN}",
        )
    if found.empty:
        fault(
            seen=f"{node.name} has empty labels: {', '.join(found.empty)}",
            means="GFD did not learn this from the driver",
            remedy=f"delete {found.daemonset}'s pod on {node.name}; {_AGAIN}",
        )


@check("DSC-005", layer=Layer.DISCOVERY, severity=Severity.MAJOR, after=("DSC-004",))
def check_labels_agree_with_nvml(node: Node) -> None:
    """The labels agree with NVML on the same node: count, product, memory, driver, CUDA and compute capability.

    GFD describes one product where a node has several, and MIG devices instead of GPUs where strategy single
    applies: count and memory are then SHR-003's.
    """
    if not known(node.cluster.stack.feature_discoveries, "the GFD DaemonSets"):
        not_applicable("GPU Feature Discovery is not installed")
    labels = known(node.labels, "the node's labels")
    if _PRODUCT not in labels:
        not_applicable(f"the node has no label {_PRODUCT}; DSC-004 judges that")
    code = known(attempt(lambda: nvml.init_code(node.host)), "whether NVML starts")
    if code:
        not_applicable(f"NVML does not start (code {code}); DRV-005 judges that")
    found = known(node.cluster.features.disagreements(node), "what NVML says of the node's GPUs")
    if found:
        fault(
            seen=f"{node.name}: {'; '.join(found)}",
            means="the labels describe an earlier driver or other GPUs: GFD has not looked since the change",
            remedy=f"delete GFD's pod on {node.name}; once its successor is Ready, run 'gpucheck run -k DSC-005'",
        )
