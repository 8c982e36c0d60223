"""Why what a node offers is not what its GPUs and the plugin's configuration make of them: one reading of each way.

Works on counts by resource alone, so that every profile and every way of sharing reads alike. Judges nothing.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.fleet import products
from kube_gpucheck.evidence.sharing import Sharing
from kube_gpucheck.evidence.siblings import memory_mib
from kube_gpucheck.evidence.tables import MigProduct, mig_product
from kube_gpucheck.model import Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.node import Node

_MIG: Final = re.compile(r"nvidia\.com/mig-(.+?)(?:\.shared)?")
_INSTANCE: Final = re.compile(r"\d{1,2}c\.(.+)")


class Difference(msgspec.Struct, frozen=True):
    """What a node offers, what is implied, how its GPUs are shared, and what their profiles are where that is known.

    `gpus`: how many GPUs the node has, None if nothing tells.
    """

    offered: Mapping[str, int]
    expected: Mapping[str, int]
    sharing: Sharing = Sharing()
    mig: MigProduct | None = None
    gpus: int | None = None

    def __str__(self) -> str:
        """Return the one reading that the numbers carry."""
        return next(words for words in (self._foreign(), self._renamed(), self._layout(), self._number()) if words)

    @property
    def _more(self) -> dict[str, int]:
        return {name: count for name, count in self.offered.items() if count > self.expected.get(name, 0)}

    @property
    def _less(self) -> dict[str, int]:
        return {name: count for name, count in self.expected.items() if count > self.offered.get(name, 0)}

    def _foreign(self) -> str | None:
        """Tell of profiles that no GPU of this product has, and of more devices than its GPUs can hold."""
        if self.mig is None:
            return None
        for name in self._more:
            profile = profile_of(name, self.mig)
            if profile is None:
                continue
            most = self.mig.profiles.get(profile)
            if most is None:
                has = ", ".join(self.mig.profiles)
                return (
                    f"{name} is no profile of this product ({self.mig.product} has {has}): other GPUs were here before"
                )
            shared = self.sharing.offering(name)
            devices = self.offered[name] // (shared.replicas if shared else 1)
            if self.gpus is not None and devices > most * self.gpus:
                here = f"{self.gpus} GPU holds" if self.gpus == 1 else f"{self.gpus} GPUs hold, {most} each"
                return f"{devices} devices of {profile} are more than {here}: GPUs have gone"
        return None

    def _renamed(self) -> str | None:
        """Tell of sharing that renames, on one side alone."""
        for one in self.sharing.resources:
            if one.offered != one.name and one.name in self._more and one.offered in self._less:
                return (
                    f"the configuration renames shared {one.name} to {one.offered}, and the plugin offers the old name"
                )
        for name in self._more:
            if name.endswith(".shared") and name.removesuffix(".shared") in self._less:
                return f"the plugin offers {name}, as a configuration that renames shared resources would have it"
        return None

    def _layout(self) -> str | None:
        """Tell of MIG devices against whole GPUs, and of other profiles."""
        more = {name for name in self._more if _MIG.fullmatch(name)}
        less = {name for name in self._less if _MIG.fullmatch(name)}
        whole_more, whole_less = set(self._more) - more, set(self._less) - less
        if less and more:
            return "the MIG layout was changed after the plugin had counted its devices"
        if less and whole_more:
            return "the plugin counted whole GPUs before these were cut into MIG devices, or has another MIG strategy"
        if more and whole_less:
            return "the plugin counted MIG devices that are no more, or has another MIG strategy"
        return None

    def _number(self) -> str:
        """Tell of other replicas, and of GPUs that came or went after the plugin had counted."""
        for one in self.sharing.resources:
            offered, expected = self.offered.get(one.offered, 0), self.expected.get(one.offered, 0)
            if offered and offered * one.replicas == expected:
                return (
                    f"each device is offered once, without the {one.replicas} replicas that the configuration asks for"
                )
            if offered and offered != expected and offered % one.replicas == 0 and offered < expected:
                counted, there = offered // one.replicas, expected // one.replicas
                return f"the plugin counted {counted} of {there} devices: it started before the driver listed every GPU"
        if not self.sharing.resources and not self._less:
            factors = {self.offered[name] / count for name, count in self.expected.items() if count}
            if len(factors) == 1 and (times := factors.pop()) > 1 and times.is_integer():
                return (
                    f"each device is offered {times:.0f} times, as by a sharing configuration that is no longer there"
                )
        if not self._less:
            return "the plugin counted GPUs that are no longer there"
        return "the device plugin started before the driver listed every GPU, or it runs with another configuration"


def profile_of(resource: str, product: MigProduct) -> str | None:
    """Return the MIG profile that a resource stands for, spelt as the product spells it; None for a whole GPU.

    In a resource a `+` is a dot (`mig-1g.10gb.me`); a compute instance is a part of its profile (`1c.3g.40gb`).
    """
    found = _MIG.fullmatch(resource)
    if found is None:
        return None
    told = found[1]
    part = _INSTANCE.fullmatch(told)
    plain = part[1] if part else told
    return next((one for one in product.profiles if one.replace("+", ".") == plain), plain)


def difference(node: "Node", offered: Mapping[str, int], expected: Mapping[str, int]) -> Difference:
    """Return how what a node offers differs; what is not known of sharing, product and number is left out."""
    config, names, gpus = node.plugin.config, products(node), node.gpus
    product = None
    if isinstance(names, Seen) and len(names.value) == 1:
        memory = memory_mib(node)
        product = mig_product(names.value[0], memory.value if isinstance(memory, Seen) else None)
    return Difference(
        offered,
        expected,
        config.value.sharing if isinstance(config, Seen) else Sharing(),
        product,
        len(gpus.value) if isinstance(gpus, Seen) else None,
    )
