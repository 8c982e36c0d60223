"""Device-plugin layer: the plugin watches its GPUs, holds none back that is well, and lets nobody lose one."""

from typing import Final

from kube_gpucheck.evidence import Component, Node
from kube_gpucheck.evidence.delivery import Mode, setting, strategies
from kube_gpucheck.evidence.toolkit import ToolkitMode
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity

_UPDATES_NO_DEVICES: Final = (1, 0, 0)
"""From here on runc leaves a container's devices alone when its CPUs change.

Source: opencontainers/runc CHANGELOG.md, 1.0.0: "cgroups: set SkipDevices during runc update".
"""
_TRUE: Final = frozenset({"true", "1", "t"})


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


@check("PLG-015", layer=Layer.DEVICE_PLUGIN, severity=Severity.MAJOR, after=("PLG-003",))
def check_static_cpu_manager_takes_no_gpu_away(node: Node) -> None:
    """With the static CPU manager, the plugin passes device specs or CDI, so that containers keep their GPUs.

    The kubelet changes the CPUs of running containers, and a runc before 1.0.0 then writes their device permissions
    anew, without those that the toolkit's hook added. That systemd does the same at daemon-reload is RTM-012's.
    """
    if not known(node.plugin.pods, "the device-plugin pods on the node"):
        not_applicable("no device-plugin pod is on the node; PLG-001, PLG-002 and PLG-013 judge that")
    declared = known(node.deliveries.declared, "how GPUs reach this node's containers")
    by_handler = known(node.deliveries.by_handler, "how GPUs reach this node's containers")
    if not by_handler and Mode.OCI_HOOK not in declared:
        not_applicable("this node's containers get their GPUs without the toolkit's hook")
    policy = known(node.runtime.engine.cpu_manager_policy, "the kubelet's CPU manager policy")
    if policy != "static":
        not_applicable(f"the kubelet's CPU manager policy is {policy}")
    if known(node.plugin.config, "the device plugin's configuration").pass_device_specs:
        return
    for daemonset in known(node.deliveries.serving(Component.DEVICE_PLUGIN), "the device plugins"):
        container = known(daemonset.main_container, "the device plugin's container")
        passes = setting(container, "PASS_DEVICE_SPECS", "--pass-device-specs").lower() in _TRUE
        if passes or any(one.startswith("cdi-") for one in strategies(container)):
            return
    if by_handler and known(node.runtime.toolkit.mode, "the mode of the NVIDIA runtime") is not ToolkitMode.LEGACY:
        return
    release = known(node.runtime.engine.runc_release, "the release of runc")
    if release is not None and release >= _UPDATES_NO_DEVICES:
        return
    fault(
        seen=f"the kubelet on {node.name} has CPU manager policy static, the toolkit injects in mode legacy, the "
        f"device plugin passes neither device specs nor CDI names, and runc is {_older(release)}",
        means="when the kubelet changes the CPUs of a running container, it loses its GPU: 'Failed to initialize NVML: "
        "Unknown Error'",
        remedy="set PASS_DEVICE_SPECS=true on the device plugin (chart: compatWithCPUManager=true), or upgrade runc to "
        "1.0.0 or later; then run 'gpucheck run -k PLG-015'",
        severity=Severity.MAJOR if release is not None else Severity.MINOR,
    )


def _older(release: tuple[int, int, int] | None) -> str:
    return "of unknown release" if release is None else "older than 1.0.0"
