"""Cluster layer: whatever counts a node's GPUs comes to one number, and nodes of one kind have the same GPUs."""

from kube_gpucheck.evidence import Node
from kube_gpucheck.evidence.counts import Count, counts
from kube_gpucheck.evidence.pci import workload_config
from kube_gpucheck.evidence.siblings import Most, Traits, Usual
from kube_gpucheck.judging import Threshold, check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Missing, MissingKind, Reading, Seen, Severity

SIBLINGS = Threshold(
    "CLU-008-nodes", 3, "nodes", "of two that differ nothing tells the odd one; of three two agree, and name the third"
)
MAJORITY = Threshold(
    "CLU-008-majority",
    2 / 3,
    "of the nodes that tell",
    "two of three is the least by which one node is the odd one; below, a pool is mixed or being changed",
)
MEMORY = Threshold(
    "CLU-008-memory",
    0.03,
    "of the memory",
    "drivers count about 1 % of it differently (A100 40 GB: 40536 and 40960 MiB); ECC on GDDR takes 6.25 %",
)


@check(
    "CLU-007",
    layer=Layer.CLUSTER,
    severity=Severity.MAJOR,
    after=("DRV-001", "DRV-006", "DSC-005", "PLG-005", "TEL-005", "DRA-002"),
)
def check_counts_of_gpus_agree(node: Node) -> None:
    """Every count of the node's GPUs agrees with what the plugin's effective configuration implies.

    Compared are the PCI bus, NVML, GFD's label, capacity and ResourceSlices, as far as they were asked for and speak;
    the first that differs from the hardware is named. Capacity keeps a GPU that the plugin holds unhealthy (PLG-006).
    Not judged: what does not count at all (DRV-005, DSC-004, PLG-005), and what an exporter shows (TEL-005).
    """
    config = known(workload_config(node), "the node's workload type")
    if config != "container":
        not_applicable(f"the node's workload type is {config}: its GPUs are for virtual machines")
    found = known(counts(node), "what counts the node's GPUs")
    odd = found.odd
    if odd is not None:
        said = ", ".join(map(str, found.layers))
        fault(
            seen=f"{node.name}: {odd.layer} counts {odd.found}, where {odd.implied} "
            f"{'is' if odd.implied == 1 else 'are'} implied; {said}",
            means=_means(odd),
            remedy=f"{_mend(node, odd)}, then run 'gpucheck run -k CLU-007'",
        )
    for missing in found.missing:
        known(missing, "what counts the node's GPUs")
    if len(found.layers) < 2:  # noqa: PLR2004  two are needed to agree
        only = found.layers[0].layer if found.layers else "nothing"
        not_applicable(f"{only} counts this node's GPUs, and nothing that was read counts them beside it")


def _means(odd: Count) -> str:
    below = "fewer" if odd.found < odd.implied else "more"
    if odd.layer == "NVML":
        return "the driver does not bring up every GPU that is on the bus: DRV-001, DRV-006 and DRV-023 tell why"
    if odd.layer.startswith("label"):
        return f"GFD counted {below} than there are now: it has not looked since GPUs came or went"
    if odd.layer.startswith("capacity"):
        return f"the device plugin offers {below} than there are: it looked too early, or runs with other settings"
    return f"the DRA driver lists {below} than there are: it looked before GPUs came or went"


def _mend(node: Node, odd: Count) -> str:
    if odd.layer == "NVML":
        return "mend what DRV-006 names"
    who = "GFD's" if odd.layer.startswith("label") else "the DRA driver's"
    return f"delete {'the device-plugin' if odd.layer.startswith('capacity') else who} pod on {node.name}"


@check("CLU-008", layer=Layer.CLUSTER, severity=Severity.MAJOR, after=("DRV-006", "PLG-005"))
def check_node_equals_its_siblings(node: Node) -> None:
    """The node has as many GPUs, of the same product, memory and driver, as its siblings.

    Siblings have one instance type and pool, as the provider's labels tell; where none does, one chassis and product
    (`nvidia.com/gpu.machine`). Judged against what two thirds of at least three nodes have. More GPUs than siblings are
    no fault; another driver alone is minor, for updates go node by node; so is half the number in one chassis, which
    is sold so.
    """
    traits = known(known(node.cluster.siblings.traits, "the GPU nodes")[node.name], "of what kind the node is")
    if traits is None:
        not_applicable("no label tells of what kind the node is (instance type, pool, nvidia.com/gpu.machine)")
    usual = known(node.cluster.siblings.usual, "the GPU nodes")[traits.kind]
    if usual.nodes < SIBLINGS.value:
        not_applicable(
            f"{usual.nodes} GPU node{'s are' if usual.nodes > 1 else ' is'} of this kind ({traits.kind.words}), "
            f"{SIBLINGS.value:g} are needed to tell the odd one"
        )
    _judge_product(node, traits, usual)
    _judge_count(node, traits, usual)
    _judge_memory(node, traits, usual)
    _judge_driver(node, traits, usual)
    for reading in (traits.count, traits.product, traits.memory_mib, traits.driver):
        if isinstance(reading, Missing) and reading.kind is not MissingKind.NOT_ASKED:
            known(reading, "what the node has")
    if all(_value(one) is None for one in (traits.count, traits.product, traits.memory_mib, traits.driver)):
        not_applicable("nothing that was read tells what GPUs the node has; DRV-003, DSC-004 and PLG-005 judge that")


def _value(reading: Reading[int | None] | Reading[str | None]) -> int | str | None:
    return reading.value if isinstance(reading, Seen) else None


def _among(traits: Traits, most: "Most[int] | Most[str]") -> str:
    return f"on {most.nodes} of {most.of} nodes of its kind ({traits.kind.words})"


def _is_rule(most: "Most[int] | Most[str] | None") -> bool:
    return most is not None and most.of >= SIBLINGS.value and most.nodes >= MAJORITY.value * most.of


def _judge_product(node: Node, traits: Traits, usual: Usual) -> None:
    mine, most = _value(traits.product), usual.product
    if most is not None and _is_rule(most) and mine is not None and mine != most.value:
        fault(
            seen=f"{node.name} has {mine}; {most.value} {_among(traits, most)}",
            means="the node is not of the kind that its labels say, or a GPU was replaced by another product",
            remedy="have the node replaced, or take it out of this pool; then run 'gpucheck run -k CLU-008'",
        )


def _judge_count(node: Node, traits: Traits, usual: Usual) -> None:
    mine, most = _value(traits.count), usual.count
    if most is None or not _is_rule(most) or not isinstance(mine, int) or mine >= most.value:
        return
    short = most.value - mine
    sold_so = not traits.kind.is_told and most.value % mine == 0
    fault(
        seen=f"{node.name} has {mine} GPU{'s' if mine > 1 else ''}; {most.value} {_among(traits, most)}",
        means="the node may have been bought with fewer; else GPUs have gone from the bus"
        if sold_so
        else f"{short} GPU{'s have' if short > 1 else ' has'} gone from the bus, so that no layer of the node misses "
        f"{'them' if short > 1 else 'it'}",
        remedy=f"look for the GPU on {node.name} ('lspci -d 10de:', its management controller, 'dmesg | grep -i xid'); "
        "drain and power-cycle the node, have the GPU reseated or replaced; then run 'gpucheck run -k CLU-008'",
        severity=Severity.MINOR if sold_so else None,
    )


def _judge_memory(node: Node, traits: Traits, usual: Usual) -> None:
    mine, most = _value(traits.memory_mib), usual.memory_mib
    if most is None or not _is_rule(most) or not isinstance(mine, int):
        return
    if abs(mine - most.value) > MEMORY.value * most.value:
        fault(
            seen=f"{node.name} has GPUs of {mine} MiB; {most.value} MiB {_among(traits, most)}",
            means="ECC is set otherwise than on its siblings, or a GPU is another one than its name says",
            remedy=f"compare 'nvidia-smi -q -d ECC,MEMORY' on {node.name} and a sibling; set ECC alike with "
            "'nvidia-smi -e', drain and reboot; then run 'gpucheck run -k CLU-008'",
        )


def _judge_driver(node: Node, traits: Traits, usual: Usual) -> None:
    mine, most = _value(traits.driver), usual.driver
    if most is not None and _is_rule(most) and mine is not None and mine != most.value:
        fault(
            seen=f"{node.name} runs driver {mine}; {most.value} {_among(traits, most)}",
            means="an update has not reached this node, or has reached it first",
            remedy=f"bring {node.name} to the version of its siblings; then run 'gpucheck run -k CLU-008'",
            severity=Severity.MINOR,
        )
