"""How many GPUs each layer of a node counts, and how many it ought to: bus, NVML, labels, capacity, ResourceSlices.

A layer that does not speak (NVML that does not start, no label, nothing served) is left out: its own rows judge that.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.fleet import products
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.readings import attempt, need
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.node import Node

_COUNT: Final = "nvidia.com/gpu.count"
_PRODUCT: Final = "nvidia.com/gpu.product"


class Count(msgspec.Struct, frozen=True):
    """What one layer counts. `layer`: its name in a reader's words, `found`: what it has, `implied`: what it ought to.

    Both in the layer's own unit: GPUs, or the resources and MIG devices that the configuration makes of them.
    """

    layer: str
    found: int
    implied: int

    def __str__(self) -> str:
        """Return it as `NVML 7`."""
        return f"{self.layer} {self.found}"


class Counts(msgspec.Struct, frozen=True):
    """The layers that count, in order, and those whose count was asked for and could not be had."""

    layers: tuple[Count, ...]
    missing: tuple[Missing, ...]

    @property
    def odd(self) -> Count | None:
        """The first layer whose count is not what is implied, None if all agree."""
        return next((one for one in self.layers if one.found != one.implied), None)


def counts(node: "Node") -> Reading[Counts]:
    """Return what the layers of a node count. What nobody asked for is left out; missing where nobody asked at all."""
    layers: list[Count] = []
    missing: list[Missing] = []
    unasked: list[Missing] = []
    hardware: int | None = None
    for layer in _LAYERS:
        reading = attempt(partial(layer, node, hardware))
        if isinstance(reading, Missing):
            (unasked if reading.kind is MissingKind.NOT_ASKED else missing).append(reading)
        elif reading.value is not None:
            layers.append(reading.value)
            hardware = reading.value.implied if hardware is None else hardware
    if unasked and not missing and len(layers) < _LEAST:
        return unasked[0]
    return Seen(Counts(tuple(layers), tuple(missing)))


def _bus(node: "Node", _: int | None) -> Count | None:
    """Count the display and 3D controllers on the bus; none on WSL2 and Tegra."""
    number = len(need(node.driver.pci_gpus))
    return Count("the PCI bus", number, number) if number else None


def _nvml(node: "Node", hardware: int | None) -> Count | None:
    """Count what NVML lists, where it starts."""
    number = len(need(node.driver.nvml_gpus))
    if need(node.driver.nvml_init_code) != 0:
        return None
    return Count("NVML", number, number if hardware is None else hardware)


def _label(node: "Node", hardware: int | None) -> Count | None:
    """Count by GFD's label: GPUs, of the one product that it describes, or MIG devices under strategy single.

    Source: k8s-device-plugin internal/lm/resource.go, mig-strategy.go; upstream-facts §1.5.
    """
    labels = need(node.labels)
    told = labels.get(_COUNT, "")
    if not told.isdigit() or labels.get(_PRODUCT, "").endswith("-MIG-INVALID"):
        return None
    asked = not is_not_asked(node.gpus)
    if "-MIG-" in labels.get(_PRODUCT, ""):
        if not asked:
            return None
        parts = (need(node.driver.mig_profiles(gpu.identity)) for gpu in need(node.gpus))
        return Count(f"label {_COUNT}", int(told), sum(len(one) for one in parts))
    if asked and len(need(products(node))) > 1:
        return None
    return Count(f"label {_COUNT}", int(told), int(told) if hardware is None else hardware)


def _capacity(node: "Node", _: int | None) -> Count | None:
    """Count the resources in capacity that the plugin serves, against what its configuration makes of the GPUs."""
    plugin = node.plugin
    if need(plugin.is_dra_only) or need(plugin.is_partitioned) or need(plugin.other) is not None:
        return None
    serving = need(plugin.serving).resources
    if not serving:
        return None
    expected = need(plugin.expected)
    offered = {name: count for name, count in need(plugin.offer).capacity.items() if name in {*serving, *expected}}
    names = ", ".join(sorted({*offered, *expected}))
    return Count(f"capacity {names}", sum(offered.values()), sum(expected.values()))


def _slices(node: "Node", hardware: int | None) -> Count | None:
    """Count the GPUs in ResourceSlices: whole ones, those behind MIG devices, and those for virtual machines.

    Source: dra-driver-nvidia-gpu cmd/gpu-kubelet-plugin/deviceinfo.go; upstream-facts §9.
    """
    pools = need(node.cluster.dra.gpu_pools(node))
    if not pools:
        return None
    number = len({device.gpu for pool in pools for device in pool.devices if device.gpu is not None})
    return Count("ResourceSlices", number, number if hardware is None else hardware)


_LAYERS: Final[tuple[Callable[["Node", int | None], Count | None], ...]] = (_bus, _nvml, _label, _capacity, _slices)
_LEAST: Final = 2
