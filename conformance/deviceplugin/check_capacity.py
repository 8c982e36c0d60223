"""Device-plugin layer: the plugin registers, and the node offers what its GPUs and the configuration imply."""

from kube_gpucheck.evidence import Node
from kube_gpucheck.evidence.capacity import difference
from kube_gpucheck.evidence.engine import not_asked
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity


@check(
    "PLG-004",
    layer=Layer.DEVICE_PLUGIN,
    severity=Severity.CRITICAL,
    after=("PLG-003", "PLG-014", "CLU-004", "DRV-005", "DRV-006"),
)
def check_plugin_registered_with_the_kubelet(node: Node) -> None:
    """The device plugin registered with this node's kubelet.

    Proved by its log since its last start; by allocatable where the log does not reach back so far.
    """
    if not known(node.plugin.pods, "the device-plugin pods on the node"):
        not_applicable("no device-plugin pod is on the node; PLG-001, PLG-002 and PLG-013 judge that")
    serving = known(node.plugin.serving, "whether the plugin registered")
    if not serving.resources:
        fault(
            seen=f"nothing registered on {node.name}: {serving.problem}",
            means="the kubelet does not know the plugin, so it offers no GPU",
            remedy="mend what the plugin's status or log names, delete its pod on the node, then run 'gpucheck run "
            "-k PLG-004'",
        )


@check(
    "PLG-005",
    layer=Layer.DEVICE_PLUGIN,
    severity=Severity.CRITICAL,
    after=("PLG-003", "PLG-004", "DRV-006", "DRV-018", "SHR-002"),
)
def check_capacity_is_what_hardware_and_sharing_imply(node: Node) -> None:
    """Capacity is what the hardware and the plugin's effective configuration imply.

    Compared with capacity, not allocatable: a GPU that the plugin holds unhealthy stays in the former and leaves the
    latter, and PLG-006 judges that; so does it a resource that is no longer served.
    """
    if known(node.plugin.is_dra_only, "how GPUs reach this node"):
        not_applicable("only the DRA driver serves this node; DRA-002 judges what it offers")
    if known(node.plugin.is_partitioned, "the node's labels"):
        not_applicable("the provider's plugin partitions this node's GPUs, and its partitions are not derived")
    other = known(node.plugin.other, "what serves GPUs on the node")
    if other is not None:
        not_applicable(f"{other} serves GPUs here, and what it makes of them is not derived")
    serving = known(node.plugin.serving, "what the device plugin serves")
    offer = known(node.plugin.offer, "what the node offers")
    if not serving.resources:
        fault(
            seen=f"{node.name} has a GPU and nothing serves it: {serving.problem}; {offer}",
            means="no pod can be given a GPU here",
            remedy="bring the device plugin to run and register on this node, then run 'gpucheck run -k PLG-005'",
        )
    expected = known(node.plugin.expected, "the node's GPUs and the plugin's configuration")
    offered = {name: count for name, count in offer.capacity.items() if name in serving.resources or name in expected}
    if offered != expected:
        sharing = known(node.plugin.sharing_words, "the plugin's configuration")
        fault(
            seen=f"capacity is {_counts(offered)}, expected {_counts(expected)} ({sharing})",
            means=str(difference(node, offered, expected)),
            remedy="delete the node's device-plugin pod; once it is Ready, run 'gpucheck run -k PLG-005'",
        )


def _devices_taken(node: Node) -> str:
    """Say which devices the plugin took out of service; what the node offers is a fault without its log as well."""
    words = node.plugin.unhealthy_words
    if not_asked(words):
        return "the log of the plugin's pod, which would name the device, was not asked for"
    return known(words, "which devices the plugin took out of service") or "its log names no device"


def _counts(resources: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(resources.items())) or "none"


@check(
    "PLG-006",
    layer=Layer.DEVICE_PLUGIN,
    severity=Severity.MAJOR,
    after=("PLG-005", "DRV-006", "DRV-009", "DRV-011", "DRV-023", "DRV-027"),
)
def check_allocatable_equals_capacity(node: Node) -> None:
    """Allocatable equals capacity for the resources that the plugin serves.

    What running pods hold is in neither. A leftover of a resource no longer served is minor.
    """
    offer = known(node.plugin.offer, "what the node offers")
    if not offer.capacity:
        not_applicable("the node offers no GPU resource; PLG-005 judges that")
    if offer.is_even and len(offer.capacity) == 1:
        return
    served = known(node.plugin.serving, "what the device plugin serves").resources
    short = {name: count for name, count in offer.short.items() if name in served or not served}
    if short:
        lasting = node.plugin.is_forgotten
        forgotten = bool(served) and not not_asked(lasting) and known(lasting, "what the device plugin registered")
        name = next(iter(short))
        lost = f"{short[name]} of {offer.capacity[name]} {name} cannot be given to pods"
        if forgotten:
            fault(
                seen=f"{offer}; the plugin runs and registered, and took no device out of service",
                means=f"{lost}: the kubelet zeroes allocatable when a plugin's connection ends, and lost this one's",
                remedy="delete the node's device-plugin pod, so that it registers anew, then run 'gpucheck run "
                "-k PLG-006'",
            )
        if not served:
            fault(
                seen=f"{offer}; the plugin that served it is gone",
                means=f"{lost}: the kubelet zeroes allocatable when a plugin's connection ends",
                remedy="bring the device plugin back, then run 'gpucheck run -k PLG-006'",
            )
        fault(
            seen=f"{offer}; {_devices_taken(node)}",
            means=f"{lost}: the plugin holds them unhealthy until it is started anew",
            remedy="check the GPU (DRV-011, DRV-023, DRV-027); if it is well, delete the node's device-plugin pod, "
            "then run 'gpucheck run -k PLG-006'",
        )
    stale = [name for name in offer.capacity if name not in served]
    if stale:
        fault(
            seen=f"{offer}; the plugin serves {', '.join(served)} only",
            means=f"{', '.join(stale)} is left over from a layout that is no longer; the kubelet keeps it until it "
            "restarts",
            remedy="restart the kubelet once no GPU pod runs on the node, then run 'gpucheck run -k PLG-006'",
            severity=Severity.MINOR,
        )
