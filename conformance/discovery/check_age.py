"""Discovery layer: labels are of today, of nodes that have a GPU, and somebody who selects by them finds a node."""

from kube_gpucheck.evidence import Cluster, Node
from kube_gpucheck.evidence.labelling import TIMESTAMP, WHOLE
from kube_gpucheck.judging import Threshold, check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity

SHOWN = 5
GRACE = Threshold(
    "label-age-minutes",
    5,
    "min",
    "NFD's worker reads GFD's file each 60 s; its master relabels a node at once or, after an error, a little later",
)


@check("DSC-006", layer=Layer.DISCOVERY, severity=Severity.MINOR, after=("DSC-003",))
def check_labels_are_not_older_than_what_wrote_them(node: Node) -> None:
    """The labels are not older than GFD's start on the node and the node's boot, and GFD is still installed.

    By nvidia.com/gfd.timestamp, which tells when GFD began. Five minutes are allowed until labels reach the node. When
    a ConfigMap was changed, nothing tells.
    """
    if known(node.labelling.labelled_at, "the node's labels") is None:
        not_applicable(f"the node has no label {TIMESTAMP}: GFD has not labelled it, or was told to write no time")
    if known(node.labelling.is_abandoned, "whether GFD is installed"):
        fault(
            seen=f"{node.name} has GFD's labels, and GFD is not installed",
            means="the labels were left when GFD went: whatever changes on the node, they stay",
            remedy=f"take off each nvidia.com/ label that nothing writes ('kubectl label node {node.name} "
            f"{TIMESTAMP}- nvidia.com/gpu.product- …'), or install GFD again; then run 'gpucheck run -k DSC-006'",
        )
    age = known(node.labelling.age, "when GFD and the node started")
    if age is None or age.at is None:
        return
    minutes = (node.cluster.gathered_at - age.at).total_seconds() / 60
    if minutes <= GRACE.value:
        not_applicable(f"{age.later} {minutes:.0f} minutes ago; the labels may still be on their way")
    fault(
        seen=f"{node.name} was labelled by a GFD that began at {age.labelled:%Y-%m-%dT%H:%M:%SZ}; {age.later} at "
        f"{age.at:%Y-%m-%dT%H:%M:%SZ}",
        means="GFD has written nothing since, or what it wrote does not reach the node: the labels may be of another "
        "driver, layout or GPU",
        remedy=f"look at the log of GFD's pod on {node.name} and at NFD's master (DSC-001, DSC-010), then run "
        "'gpucheck run -k DSC-006'",
    )


@check("DSC-007", layer=Layer.DISCOVERY, severity=Severity.MINOR)
def check_labels_are_of_nodes_with_a_gpu(node: Node) -> None:
    """No node without a GPU carries GPU labels.

    By the PCI bus and NVML; where the host was not read, by what is allocatable and what NFD labels now.
    """
    labels = known(node.labelling.of_a_gpu, "the node's labels")
    if not labels:
        not_applicable("no label says that the node has a GPU")
    if known(node.is_tegra, "the node's kernel"):
        not_applicable("a Tegra's GPU is on no PCI bus")
    if known(node.labelling.gpu_is_there, "whether the node has a GPU") is None:
        more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
        fault(
            seen=f"{node.name} has no NVIDIA GPU, and the labels {', '.join(labels[:SHOWN])}{more}",
            means="the labels are left over from a GPU that was taken out, or were set by hand: GPU DaemonSets are "
            "wanted on a node where they cannot work",
            remedy=f"take them off ('kubectl label node {node.name} {labels[0].partition('=')[0]}- …'); if the GPU "
            "should be there, look at DRV-001; then run 'gpucheck run -k DSC-007'",
        )


@check("DSC-008", layer=Layer.DISCOVERY, severity=Severity.MINOR, after=("DSC-004", "PLG-005"))
def check_labels_agree_with_capacity(node: Node) -> None:
    """gpu.count x gpu.replicas, or the labels of MIG devices, agree with capacity.

    Of what the device plugin serves. Not judged: whole GPUs beside MIG devices, and several products, which GFD does
    not count apart.
    """
    implied = known(node.labelling.implied, "the node's labels")
    if implied is None:
        not_applicable("the node has no labels that tell a number of GPUs to be offered")
    if not known(node.plugin.serving, "what the device plugin serves").resources:
        not_applicable("the device plugin serves nothing here; PLG-004 and PLG-005 judge that")
    if known(node.plugin.is_provider, "the device plugins on the node"):
        not_applicable("the provider's device plugin serves this node, whose sharing GFD does not know")
    other = known(node.plugin.other, "what serves GPUs on the node")
    if other is not None:
        not_applicable(f"{other} serves GPUs here, whose sharing GFD does not know")
    if known(node.labelling.offers_one_device, "the device plugin's platform"):
        not_applicable("the device plugin offers one device here, whatever the number of GPUs")
    offered = known(node.labelling.offered, "what the node offers")
    if offered == implied:
        return
    if not known(node.labelling.counts_one_product, "the products of the node's GPUs"):
        not_applicable("the node has GPUs of several products, of which GFD counts one")
    fault(
        seen=f"the labels of {node.name} make {_counts(implied)}, it offers {_counts(offered)}",
        means="GFD and the device plugin look at different configurations (sharing, MIG strategy), or one of them has "
        "not looked since a change",
        remedy="give both the same configuration and MIG strategy, delete GFD's and the device plugin's pod on "
        f"{node.name}, then run 'gpucheck run -k DSC-008'",
    )


def _counts(counts: dict[str, int]) -> str:
    return (
        ", ".join(
            f"{count} {name if name != WHOLE else 'GPUs or shares'}" for name, count in sorted(counts.items()) if count
        )
        or "nothing"
    )


@check("DSC-009", layer=Layer.DISCOVERY, severity=Severity.MINOR)
def check_selectors_on_gpu_labels_match_a_node(cluster: Cluster) -> None:
    """Every selector in use on a GPU label matches a label that some node has.

    Of DaemonSets outside the GPU stack, and of Deployments and waiting pods that ask for no GPU: pods that do are
    PLG-008's, the stack's own DaemonSets DSC-002's. Keys that are deprecated are info.
    """
    if not known(cluster.selectors.in_use, "who selects nodes by GPU labels"):
        not_applicable("nobody outside the GPU stack selects nodes by a GPU label")
    unmatched = known(cluster.selectors.unmatched, "the labels of all nodes")
    if unmatched:
        told = "; ".join(f"{one.workload} wants {one.wanted}, {one.there}" for one in unmatched[:SHOWN])
        more = f"; and {len(unmatched) - SHOWN} more" if len(unmatched) > SHOWN else ""
        fault(
            seen=f"{told}{more}",
            means="no node satisfies the selector, so nothing of the workload runs: the value is misspelled, is what "
            "another version of GFD writes, or the nodes are gone",
            remedy="select by a value that nodes have ('kubectl get nodes -L KEY'), then run 'gpucheck run -k DSC-009'",
        )
    old = known(cluster.selectors.deprecated, "who selects nodes by GPU labels")
    if old:
        told = "; ".join(f"{one.workload} selects by {one.key}, in place of {new}" for one, new in old[:SHOWN])
        fault(
            seen=told,
            means="the key is deprecated since GFD 0.15, and goes with a later version",
            remedy="select by the key that is named in its place, then run 'gpucheck run -k DSC-009'",
            severity=Severity.INFO,
        )
