"""What the device plugin thinks of the health of a node's GPUs, beside what NVML says of the same GPUs.

Judges nothing. Source: k8s-device-plugin internal/rm/health.go and internal/plugin/server.go (0.12 to 0.20): a device
that is marked unhealthy stays so until the plugin starts anew.
"""

from typing import TYPE_CHECKING, Final

from kube_gpucheck.evidence.health import Recovery
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.pluginlog import Unhealthy
from kube_gpucheck.evidence.podspec import main_container
from kube_gpucheck.evidence.readings import derived, need
from kube_gpucheck.evidence.stack import Component
from kube_gpucheck.evidence.tables import nvml_code, xids

if TYPE_CHECKING:
    from kube_gpucheck.evidence.gpu import Gpu
    from kube_gpucheck.evidence.node import Node

DISABLE: Final = "DP_DISABLE_HEALTHCHECKS"
ENABLE: Final = "DP_ENABLE_HEALTHCHECKS"
_PASSING: Final = frozenset({"none", "restart-app", "check-app"})
"""Actions of the catalogue of XIDs that leave the GPU as it is."""
_ALL: Final = frozenset({"all", "xids"})


class DeviceHealth:
    """The health of one node's devices, as its device plugin holds them."""

    def __init__(self, node: "Node") -> None:
        """Keep the node."""
        self.node = node

    @derived
    def switched_off(self) -> str | None:
        """The setting by which a device plugin of the node checks no health at all, None if each checks.

        A single XID in DP_ENABLE_HEALTHCHECKS does not switch the checks on again; `all` does (0.18 and later).
        """
        for pod in need(self.node.plugin.pods):
            if need(pod.component) is not Component.DEVICE_PLUGIN:
                continue
            told = {one.name: one.value or "" for one in main_container(need(pod.object).spec).env or ()}
            if _words(told.get(DISABLE, "")) & _ALL and not _words(told.get(ENABLE, "")) & _ALL:
                return f"{DISABLE}={told[DISABLE]}"
        return None

    @derived
    def held(self) -> "tuple[Gpu, ...]":
        """The GPUs of which the plugin holds a device unhealthy: those that its log names, all if it names none."""
        offer = need(self.node.plugin.offer)
        if offer.is_even:
            return ()
        served = need(self.node.plugin.serving).resources
        if not any(name in served for name in offer.short):
            return ()
        named = {one.device.partition("::")[0] for _, log in need(self.node.plugin.logs) for one in log.unhealthy}
        gpus = need(self.node.gpus)
        return tuple(gpu for gpu in gpus if gpu.identity.uuid in named) or (() if _whole(named) else gpus)

    @derived
    def well(self) -> "tuple[Gpu, ...]":
        """Those of them that answer NVML, ask for no recovery, and had no XID that does; pods could have them again."""
        held = need(self.held)
        marked = [one for _, log in need(self.node.plugin.logs) for one in log.unhealthy] if held else []
        return tuple(gpu for gpu in held if _is_well(gpu) and not any(_calls(one, gpu) for one in marked))


def _words(text: str) -> set[str]:
    return {word.strip() for word in text.lower().split(",")}


def _whole(devices: set[str]) -> bool:
    """Tell whether devices are named by the UUIDs of GPUs (and not of MIG devices, or not at all)."""
    return any(one.startswith("GPU-") for one in devices)


def _calls(one: Unhealthy, gpu: "Gpu") -> bool:
    """Tell whether the XID for which a device was marked asks for more than that the program starts again."""
    if one.xid is None or one.device.partition("::")[0] != gpu.identity.uuid:
        return False
    known = xids().of(one.xid)
    return known is None or known.action not in _PASSING


def _is_well(gpu: "Gpu") -> bool:
    if gpu.identity.index is None:
        return False
    answers = need(gpu.node.driver.queries(gpu.identity))
    if not answers or any(nvml_code(answer.code).lost for _, answer in answers):
        return False
    recovery = gpu.health.recovery
    return is_not_asked(recovery) or need(recovery) in {None, Recovery.NONE}
