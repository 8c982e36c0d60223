"""Reference data that evidence is translated with: XIDs, NVML's return codes, GPU generations.

The tables lie in `kube_gpucheck/data/`, each with its source; a table is read when it is first asked
for. Nothing else of the package's files is read from here.
"""

import functools
from importlib import resources
from typing import Any, Final, Literal

import msgspec


class XidMeaning(msgspec.Struct, frozen=True):
    """What one XID says. `action` and `then` name sentences of `XidTable.actions`; `then` may be empty."""

    code: int
    name: str
    meaning: str
    action: str
    then: str = ""


class XidTable(msgspec.Struct, frozen=True):
    """NVIDIA's catalogue.

    `application`: codes that a faulty program causes on a sound GPU. `pending`: codes that ask for nothing at once,
    and for a reset at the next chance.
    """

    application: frozenset[int]
    pending: frozenset[int]
    actions: dict[str, str]
    codes: tuple[XidMeaning, ...]

    def of(self, code: int) -> XidMeaning | None:
        """Return what a code says, None if the catalogue does not use it."""
        return next((one for one in self.codes if one.code == code), None)


class NvmlCode(msgspec.Struct, frozen=True):
    """One NVML return code. `lost`: a GPU that answers so cannot be used."""

    code: int
    name: str
    meaning: str
    remedy: str
    lost: bool = False

    def __str__(self) -> str:
        """Return it as a reader knows it: number, name, meaning."""
        return f"{self.code} ({self.name}: {self.meaning})"


class Generation(msgspec.Struct, frozen=True):
    """One GPU generation: how it is recognised, and which driver serves it; `data/gpus.yaml` defines each field."""

    name: str
    family: str
    devices: tuple[tuple[int, int], ...]
    nvml: int
    compute: tuple[str, str]
    modules: Literal["open", "proprietary", "either"]
    first_branch: int
    last_branch: int | None
    gsp: bool
    product: str | None = None
    """A word of the product's name that sets it apart from the rest of its family, None for a whole family."""

    def has_device(self, device: int) -> bool:
        """Tell whether a PCI device id of NVIDIA's belongs to it."""
        return any(first <= device <= last for first, last in self.devices)


@functools.cache
def xids() -> XidTable:
    """Return the catalogue of XIDs."""
    table: XidTable = _table("xid.yaml", XidTable)
    return table


def nvml_code(code: int) -> NvmlCode:
    """Return what an NVML return code means; a number that nvml.h does not have is said to be unknown."""
    return _nvml_codes().get(code) or NvmlCode(
        code, "?", "a code that nvml.h does not have", "read 'dmesg' on the node"
    )


def generation_of_device(device: int) -> Generation | None:
    """Return the generation that a PCI device id belongs to, None if the table does not have it."""
    return next((one for one in _generations() if one.has_device(device)), None)


def generation_of_nvml(architecture: int, product: str) -> Generation | None:
    """Return the generation that nvmlDeviceGetArchitecture and nvmlDeviceGetName tell, None if the table lacks it."""
    for one in _generations():
        if one.nvml == architecture and (one.product is None or one.product in product):
            return one
    return None


@functools.cache
def _nvml_codes() -> dict[int, NvmlCode]:
    codes: tuple[NvmlCode, ...] = _table("nvml.yaml", tuple[NvmlCode, ...])
    return {one.code: one for one in codes}


@functools.cache
def _generations() -> tuple[Generation, ...]:
    generations: tuple[Generation, ...] = _table("gpus.yaml", tuple[Generation, ...])
    return generations


_PACKAGE: Final = "kube_gpucheck"


def _table(name: str, form: Any) -> Any:  # noqa: ANN401  msgspec's decoders take any type and give a value of it
    return msgspec.yaml.decode((resources.files(_PACKAGE) / "data" / name).read_bytes(), type=form)
