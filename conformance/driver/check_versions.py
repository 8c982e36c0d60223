"""Driver layer: products and drivers belong together, and are maintained."""

from kube_gpucheck.evidence import Cluster, Node
from kube_gpucheck.evidence.fleet import driver_version
from kube_gpucheck.evidence.pci import given_away
from kube_gpucheck.evidence.tables import branches
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity

_SHOWN = 5


@check("DRV-020", layer=Layer.DRIVER, severity=Severity.MINOR, after=("DRV-005",))
def check_gpus_of_a_node_are_alike(node: Node) -> None:
    """The node's GPUs are one product with one video BIOS, and no InfoROM is damaged.

    Different products or BIOSes are info: some are meant so. Not judged without the full sweep: the InfoROM's checksum,
    which takes 70 ms a GPU.
    """
    if (reason := known(given_away(node), "the node's workload type")) is not None:
        not_applicable(reason)
    listed = [gpu for gpu in known(node.gpus, "the GPUs") if gpu.identity.index is not None]
    if not listed:
        known(node.driver.nvml_init_code, "NVML's start")
        not_applicable("NVML lists no GPU; DRV-005 and DRV-006 judge that")
    damaged = [gpu.name for gpu in listed if known(gpu.health.inforom_is_damaged, "what NVML says of the GPU")]
    if damaged:
        fault(
            seen=f"NVML calls the InfoROM of {', '.join(damaged)} corrupted",
            means="the GPU cannot keep its error history and settings; nvidia-smi ends with status 14, and the GPU "
            "Operator's validator with it",
            remedy="drain the node and have the GPU's InfoROM reflashed, or replace the GPU; then run 'gpucheck run "
            "-k DRV-020'",
        )
    kinds = {gpu.name: known(gpu.health.product, "what NVML says of the GPU") for gpu in listed}
    if len(set(kinds.values())) > 1:
        fault(
            seen=_grouped({name: str(kind) for name, kind in kinds.items()}),
            means="pods get one product or the other; labels describe only one of them",
            remedy="if it is meant so, let the plugin name them apart ('resources' in its configuration)",
            severity=Severity.INFO,
        )
    versions = {gpu.name: str(known(gpu.health.vbios, "what NVML says of the GPU")) for gpu in listed}
    if len(set(versions.values())) > 1:
        fault(
            seen=f"video BIOS: {_grouped(versions)}",
            means="a GPU was replaced, or an update stopped half way; limits and clocks may differ",
            remedy="flash one version, as the vendor's firmware bundle has it",
            severity=Severity.INFO,
        )


def _grouped(values: dict[str, str]) -> str:
    groups: dict[str, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    return "; ".join(f"{value} at {', '.join(names)}" for value, names in groups.items())


@check("DRV-021", layer=Layer.DRIVER, severity=Severity.MINOR)
def check_driver_is_maintained(node: Node) -> None:
    """The driver's branch is maintained, and no security bulletin calls its version affected.

    By the table in src/kube_gpucheck/data/branches.yaml, on the day of the evidence; what was announced after the
    table's own day is not in it. Not judged: whether the branch serves the GPU (DRV-028).
    """
    version = known(driver_version(node), "the driver's version")
    if version is None:
        not_applicable("no nvidia module is loaded; DRV-003 judges that")
    table = branches()
    today = node.cluster.gathered_at.date()
    number = int(version.split(".", 1)[0])
    branch = table.of(number)
    if branch is None:
        not_applicable(f"the table of {table.as_of} does not have branch R{number}")
    hole = table.holes(version, today)
    bulletin = (
        f"NVIDIA's bulletin {hole.id} of {hole.published} calls R{number} before {hole.fixed[number]} affected "
        f"(CVEs: {hole.cves})"
        if hole is not None
        else ""
    )
    if today >= branch.ends:
        fault(
            seen=f"the driver is {version}; R{number} is maintained until {branch.ends:%Y-%m}, by the table of "
            f"{table.as_of}" + (f"; {bulletin}" if bulletin else ""),
            means="nothing that is found in this branch is mended any more",
            remedy="plan to move to a maintained branch that serves this GPU; then run 'gpucheck run -k DRV-021'",
        )
    if hole is not None:
        fault(
            seen=f"the driver is {version}; {bulletin}",
            means="a user of the node can use a published hole of this driver",
            remedy=f"update the driver to R{number} {hole.fixed[number]} or later, drain and reboot the node; then run "
            "'gpucheck run -k DRV-021'",
        )


@check("DRV-026", layer=Layer.DRIVER, severity=Severity.MINOR)
def check_nodes_of_a_product_run_one_driver(cluster: Cluster) -> None:
    """GPU nodes of one product run one driver version.

    By what was read on the nodes, else by GFD's labels. Nodes of which neither was asked are left out. Not judged:
    which of the versions is the right one.
    """
    drivers = known(cluster.fleet.drivers, "the nodes' drivers")
    if not drivers:
        not_applicable("no node has a loaded driver; DRV-003 judges that")
    mixed = {product: versions for product, versions in drivers.items() if len(versions) > 1}
    if mixed:
        fault(
            seen="; ".join(f"{product}: {_told(versions)}" for product, versions in sorted(mixed.items())),
            means="the same job can work on one node and fail on another; an update stopped half way, or nodes were "
            "made from different images",
            remedy="finish the update node by node; then run 'gpucheck run -k DRV-026'",
        )


def _told(versions: dict[str, tuple[str, ...]]) -> str:
    return ", ".join(f"{version} on {_named(nodes)}" for version, nodes in sorted(versions.items()))


def _named(nodes: tuple[str, ...]) -> str:
    more = f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else ""
    return ", ".join(sorted(nodes)[:_SHOWN]) + more
