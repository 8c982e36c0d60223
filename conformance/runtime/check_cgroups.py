"""Runtime layer: containers under the NVIDIA handler keep the cgroup, and the devices in it, that they were given."""

from kube_gpucheck.evidence import Component, Node
from kube_gpucheck.evidence.configuration import Configuration, Handler
from kube_gpucheck.evidence.delivery import Mode, setting, strategies
from kube_gpucheck.evidence.toolkit import ToolkitMode
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Seen, Severity


@check("RTM-006", layer=Layer.RUNTIME, severity=Severity.MAJOR, after=("RTM-003",))
def check_handler_has_the_cgroup_driver_of_the_others(node: Node) -> None:
    """The handler's cgroup driver equals the default runtime's, and the kubelet's where the kubelet has its own.

    A kubelet of 1.31 or later asks an engine that can tell. Minor where nothing shows that it does harm: no cgroup v2,
    on which pods are killed after seconds, and no pod that flaps.
    """
    if not known(node.deliveries.by_handler, "how GPUs reach this node's containers"):
        not_applicable("this node's containers get their GPUs without a handler of the engine")
    configuration = known(node.runtime.configuration, "the engine's effective configuration")
    if not configuration.nvidia:
        not_applicable("no handler for NVIDIA is configured; RTM-003 judges that")
    if configuration.systemd_cgroups is not None:
        not_applicable("this engine has one cgroup driver for all its handlers")
    wanted, whose = _wanted(node, configuration)
    wrong = [one for one in configuration.nvidia if _driver(one) != wanted]
    if not wrong:
        return
    unified, flapping = node.runtime.cgroups_are_unified, node.runtime.flapping_pods
    pods = flapping.value if isinstance(flapping, Seen) else ()
    harms = bool(pods) or (isinstance(unified, Seen) and unified.value)
    names = ", ".join(f"'{one.name}'{'' if one.origin is None else f' of {one.origin}'}" for one in wrong)
    also = f"; {', '.join(pods[:3])} {'flaps' if len(pods) == 1 else 'flap'}" if pods else ""
    fault(
        seen=f"handler {names} has cgroup driver {_driver(wrong[0])}, {whose} has {wanted}{also}",
        means="containers of this handler land in a cgroup that the kubelet does not manage: on cgroup v2 they are "
        "killed after seconds or flap",
        remedy=f"set SystemdCgroup = {str(wanted == 'systemd').lower()} in the handler's options in "
        f"{node.runtime.engine.editable}, then '{node.runtime.engine.restart}'; confirm with 'gpucheck run -k RTM-006'",
        severity=Severity.MAJOR if harms else Severity.MINOR,
    )


@check("RTM-012", layer=Layer.RUNTIME, severity=Severity.MAJOR)
def check_running_containers_survive_a_reload_of_systemd(node: Node) -> None:
    """In legacy mode with systemd cgroups, running containers keep their GPUs when systemd is reloaded.

    systemd writes a container's device permissions anew, and knows only devices that stand in the container's
    specification or have a link in /dev/char. The modes jit-cdi, cdi and csv, and a plugin that passes device specs or
    CDI names, put them into the specification.
    """
    declared = known(node.deliveries.declared, "how GPUs reach this node's containers")
    by_handler = known(node.deliveries.by_handler, "how GPUs reach this node's containers")
    if not by_handler and Mode.OCI_HOOK not in declared:
        not_applicable("this node's containers get their GPUs without the toolkit's hook")
    if not known(node.runtime.toolkit_installed, "whether the toolkit is installed"):
        not_applicable("the NVIDIA Container Toolkit is not installed; RTM-002 judges that")
    if by_handler and known(node.runtime.toolkit.mode, "the mode of the NVIDIA runtime") is not ToolkitMode.LEGACY:
        return
    for daemonset in known(node.deliveries.serving(Component.DEVICE_PLUGIN), "the device plugins"):
        container = known(daemonset.main_container, "the device plugin's container")
        passes = setting(container, "PASS_DEVICE_SPECS", "--pass-device-specs").lower() in {"true", "1", "t"}
        if passes or any(one.startswith("cdi-") for one in strategies(container)):
            return
    if not known(node.runtime.gives_systemd_cgroups, "whether systemd makes the containers' cgroups"):
        return
    if not known(node.runtime.links_of_devices, "the links in /dev/char"):
        fault(
            seen="the toolkit injects in mode legacy, systemd makes the containers' cgroups, /dev/char has no link to "
            "a device node of NVIDIA's, and no device plugin passes device specs",
            means="at the next 'systemctl daemon-reload' running containers lose their GPUs: 'Failed to initialize "
            "NVML: Unknown Error'",
            remedy="run 'nvidia-ctk system create-dev-char-symlinks --create-all' at each boot (a udev rule), or set "
            "nvidia-container-runtime.mode=auto on toolkit 1.18 or later; confirm with 'gpucheck run -k RTM-012'",
        )


def _wanted(node: Node, configuration: Configuration) -> tuple[str, str]:
    """Return the cgroup driver that NVIDIA's handlers must have, and who has it."""
    kubelets = known(node.runtime.engine.kubelets_cgroup_driver, "the kubelet's cgroup driver")
    if kubelets is not None:
        return kubelets, "the kubelet"
    plain = next(
        (one for one in configuration.handlers if not one.is_nvidia and one.name == configuration.default), None
    )
    plain = plain or next((one for one in configuration.handlers if one.name == "runc"), None)
    if plain is None:
        not_applicable("no other handler is there to compare with, and the kubelet's cgroup driver is not known")
    return _driver(plain), f"handler '{plain.name}'"


def _driver(handler: Handler) -> str:
    return "systemd" if handler.systemd_cgroup else "cgroupfs"
