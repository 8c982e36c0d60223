"""Cluster layer: there are nodes with NVIDIA GPUs."""

from kube_gpucheck.evidence import Cluster, Node
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Seen, Severity

SHOWN = 5


@check("CLU-003", layer=Layer.CLUSTER, severity=Severity.CRITICAL, after=("CLU-001",))
def check_nodes_show_signs_of_gpus(cluster: Cluster) -> None:
    """At least one node carries a sign of an NVIDIA GPU.

    With `--expect-gpu-nodes N` at least N do. A sign is whatever speaks first: `--node`, a label, capacity,
    a ResourceSlice, the PCI bus, NVML. Whether the GPU works is judged by the layers above.
    """
    expected = cluster.option.expected_gpu_nodes
    if expected == 0:
        not_applicable("--expect-gpu-nodes 0: nobody expects a GPU here")
    nodes = known(cluster.nodes, "the nodes")
    with_gpu = [node for node in nodes if isinstance(node.gpu_signs, Seen) and node.gpu_signs.value]
    least = 1 if expected is None else expected
    for node in nodes:
        known(node.gpu_signs, f"whether {node.name} has a GPU")
    if len(with_gpu) >= least:
        return
    names = {node.name for node in with_gpu}
    without = [node.name for node in nodes if node.name not in names]
    if with_gpu:
        short = least - len(with_gpu)
        fault(
            seen=f"{len(with_gpu)} of {len(nodes)} nodes show a GPU, {least} are expected: "
            f"{_some([_signs(node) for node in with_gpu])}; no sign on {_some(without) or 'any other'}",
            means=f"{short} GPU node{'s are' if short > 1 else ' is'} missing, or discovery has not labelled them yet",
            remedy="look on the missing nodes for the GPU ('lspci -d 10de:'), then run 'gpucheck run -k CLU-003'",
        )
    hosts = sum(isinstance(node.gpus, Seen) for node in nodes)
    fault(
        seen=f"0 of {len(nodes)} nodes show a GPU ({_some(without) or 'the cluster has no node'}): no label of NFD, "
        "GFD, the operator or a provider, no nvidia.com/ capacity, no ResourceSlice; "
        f"the PCI bus was read on {hosts} of them",
        means="no node has an NVIDIA GPU, or nothing has told Kubernetes of it yet"
        if hosts < len(nodes)
        else "no node has an NVIDIA GPU",
        remedy="look on the node for it ('lspci -d 10de:'); if it is there, name the node: 'gpucheck run --node NAME'",
    )


def _signs(node: Node) -> str:
    signs = node.gpu_signs
    shown = signs.value if isinstance(signs, Seen) else ()
    return f"{node.name} ({shown[0]}{f' and {len(shown) - 1} more' if len(shown) > 1 else ''})"


def _some(words: list[str]) -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more
