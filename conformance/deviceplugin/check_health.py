"""Device-plugin layer: the plugin watches its GPUs, and holds none back that is well."""

from kube_gpucheck.evidence import Node
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity


@check("PLG-016", layer=Layer.DEVICE_PLUGIN, severity=Severity.MAJOR, after=("PLG-005",))
def check_health_checks_are_on_and_hold_no_well_gpu_back(node: Node) -> None:
    """Health checks are on, and no GPU that NVML calls healthy is still held unhealthy.

    Switched off on purpose is minor. The plugin never takes a device back by itself: only its restart does.
    """
    if not known(node.plugin.pods, "the device-plugin pods on the node"):
        not_applicable("no device-plugin pod is on the node; PLG-001, PLG-002 and PLG-013 judge that")
    held = known(node.device_health.held, "which GPUs the device plugin holds unhealthy")
    well = known(node.device_health.well, "what NVML says of the GPUs that are held unhealthy") if held else ()
    if well:
        why = known(node.plugin.unhealthy_words, "which devices the plugin took out of service")
        fault(
            seen=f"on {node.name} the device plugin holds {', '.join(gpu.name for gpu in well)} unhealthy "
            f"({why or 'its log names no device'}); NVML answers for it and asks for no recovery",
            means="what happened has passed, and the device plugin does not look again: pods lack a GPU that is well",
            remedy=f"delete the device plugin's pod on {node.name}, then run 'gpucheck run -k PLG-016'; if the GPU is "
            "taken away again, look at DRV-011",
        )
    off = known(node.device_health.switched_off, "the device plugin's settings")
    if off is not None:
        fault(
            seen=f"the device plugin on {node.name} is told {off}",
            means="it checks no GPU's health: a GPU that has failed is still given to pods",
            remedy="name only the XIDs that are to be passed over ('DP_DISABLE_HEALTHCHECKS=13,31'), or take the "
            "variable away; then run 'gpucheck run -k PLG-016'",
            severity=Severity.MINOR,
        )
    if held:
        not_applicable(f"{held[0].name} is held unhealthy, and is not well; DRV-009, DRV-011 and DRV-023 judge that")
