"""Reference data that evidence is translated with: codes of XIDs, NVML and CUDA, GPUs, driver branches, flaws.

The tables lie in `kube_gpucheck/data/`, each with its source; a table is read when it is first asked
for. Nothing else of the package's files is read from here.
"""

import datetime
import functools
import re
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


class ReturnCode(msgspec.Struct, frozen=True):
    """One return code of NVML's, or of CUDA's. `lost`: a GPU that answers so cannot be used."""

    code: int
    name: str
    meaning: str
    remedy: str
    lost: bool = False

    def __str__(self) -> str:
        """Return it as a reader knows it: number, name, meaning."""
        return f"{self.code} ({self.name}: {self.meaning})"


class Branch(msgspec.Struct, frozen=True):
    """A branch of drivers. `ends`: the first month in which it is no longer maintained."""

    branch: int
    kind: Literal["LTSB", "PB", "NFB"]
    ends: datetime.date


class Bulletin(msgspec.Struct, frozen=True):
    """A security bulletin of NVIDIA's: how many holes, and the first version of each branch without them."""

    id: int
    published: datetime.date
    cves: int
    fixed: dict[int, str]


class Branches(msgspec.Struct, frozen=True):
    """Driver branches and bulletins, as they were known on a day."""

    as_of: datetime.date
    branches: tuple[Branch, ...]
    bulletins: tuple[Bulletin, ...]

    def of(self, branch: int) -> Branch | None:
        """Return a branch, None if the table does not have it."""
        return next((one for one in self.branches if one.branch == branch), None)

    def holes(self, version: str, on: datetime.date) -> Bulletin | None:
        """Return the newest bulletin that was out on a day and calls a later version of the branch safe."""
        numbers = numbers_of(version)
        affecting = (
            one
            for one in self.bulletins
            if one.published <= on and numbers[0] in one.fixed and numbers < numbers_of(one.fixed[numbers[0]])
        )
        return max(affecting, key=lambda one: one.published, default=None)


def numbers_of(version: str) -> tuple[int, ...]:
    """Return the numbers of a driver's version, for comparing."""
    return tuple(int(one) for one in version.split("."))


class Flaw(msgspec.Struct, frozen=True):
    """A published vulnerability. `fixed`: the first release without it. `what`: what it lets somebody do."""

    id: str
    fixed: tuple[int, int, int]
    what: str


class FlawTable(msgspec.Struct, frozen=True):
    """The vulnerabilities of one component that were published until a day."""

    dated: datetime.date
    flaws: tuple[Flaw, ...]

    def of(self, release: tuple[int, int, int]) -> tuple[Flaw, ...]:
        """Return those that a release has."""
        return tuple(one for one in self.flaws if release < one.fixed)


class PluginTable(msgspec.Struct, frozen=True):
    """What NVIDIA's device plugin asks for. `kubernetes` and `driver`: the first release of each that it supports.

    `cdi_names`: the first release whose kubelet takes devices by their CDI names. `wsl`: the first plugin for WSL2.
    """

    dated: datetime.date
    kubernetes: tuple[int, int]
    driver: str
    cdi_names: tuple[int, int]
    wsl: tuple[int, int, int]
    flaws: tuple[Flaw, ...]

    def of(self, version: tuple[int, int, int]) -> tuple[Flaw, ...]:
        """Return the vulnerabilities that a version has."""
        return tuple(one for one in self.flaws if version < one.fixed)


class MigProduct(msgspec.Struct, frozen=True):
    """A product with MIG, and how many devices of each profile one GPU of it can hold; `data/mig.yaml` defines each."""

    product: str
    words: tuple[str, ...]
    profiles: dict[str, int]
    memory_mib: tuple[int, int] | None = None

    def is_it(self, name: str, memory_mib: int | None) -> bool:
        """Tell whether a GPU of this name, and of this memory where the name does not tell enough, is of it."""
        parts = re.split(r"[ -]", name)
        named = any(word in parts or (len(re.split(r"[ -]", word)) > 1 and word in name) for word in self.words)
        if not named or self.memory_mib is None:
            return named
        return memory_mib is not None and self.memory_mib[0] <= memory_mib <= self.memory_mib[1]


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


class Label(msgspec.Struct, frozen=True):
    """A label of the GPU stack; `data/labels.yaml` defines each field."""

    key: str
    writer: Literal["gfd", "nfd", "operator", "mig-manager", "user"]
    where: str
    says: str
    since: str = "0.0"
    until: str = ""
    instead: str = ""
    filled: bool = False

    @property
    def pattern(self) -> re.Pattern[str]:
        """The expression that the whole of a node's key matches."""
        return re.compile(_BLANK.sub("[A-Za-z0-9._+-]{1,100}?", re.escape(self.key)))


_BLANK: Final = re.compile(r"<[a-z]+>")


def label_of(key: str) -> Label | None:
    """Return what is known of a label's key, None if it is none of the GPU stack's."""
    return next((one for one in labels() if one.pattern.fullmatch(key)), None)


@functools.cache
def labels() -> tuple[Label, ...]:
    """Return the labels of the GPU stack: GFD's, NFD's, the operator's, and those by which a person asks."""
    table: tuple[Label, ...] = _table("labels.yaml", tuple[Label, ...])
    return table


@functools.cache
def xids() -> XidTable:
    """Return the catalogue of XIDs."""
    table: XidTable = _table("xid.yaml", XidTable)
    return table


@functools.cache
def toolkit_flaws() -> FlawTable:
    """Return the vulnerabilities of the NVIDIA Container Toolkit."""
    table: FlawTable = _table("toolkit.yaml", FlawTable)
    return table


def mig_product(name: str, memory_mib: int | None) -> MigProduct | None:
    """Return what a product's MIG profiles are, None if the table does not have it."""
    return next((one for one in mig_products() if one.is_it(name, memory_mib)), None)


@functools.cache
def mig_products() -> tuple[MigProduct, ...]:
    """Return the products with MIG."""
    products: tuple[MigProduct, ...] = _table("mig.yaml", tuple[MigProduct, ...])
    return products


@functools.cache
def device_plugin() -> PluginTable:
    """Return what NVIDIA's device plugin asks for, and its vulnerabilities."""
    table: PluginTable = _table("deviceplugin.yaml", PluginTable)
    return table


def nvml_code(code: int) -> ReturnCode:
    """Return what an NVML return code means; a number that nvml.h does not have is said to be unknown."""
    return _nvml_codes().get(code) or ReturnCode(
        code, "?", "a code that nvml.h does not have", "read 'dmesg' on the node"
    )


def cuda_code(code: int) -> ReturnCode:
    """Return what a code of CUDA's driver API means; a number that the table does not have is said to be unknown."""
    return _cuda_codes().get(code) or ReturnCode(
        code, "?", "a code that the table does not have", "look it up among CUDA's driver API's result codes"
    )


@functools.cache
def branches() -> Branches:
    """Return the driver branches, and the security bulletins."""
    table: Branches = _table("branches.yaml", Branches)
    return table


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
def _nvml_codes() -> dict[int, ReturnCode]:
    codes: tuple[ReturnCode, ...] = _table("nvml.yaml", tuple[ReturnCode, ...])
    return {one.code: one for one in codes}


@functools.cache
def _cuda_codes() -> dict[int, ReturnCode]:
    codes: tuple[ReturnCode, ...] = _table("cuda.yaml", tuple[ReturnCode, ...])
    return {one.code: one for one in codes}


@functools.cache
def _generations() -> tuple[Generation, ...]:
    generations: tuple[Generation, ...] = _table("gpus.yaml", tuple[Generation, ...])
    return generations


_PACKAGE: Final = "kube_gpucheck"


def _table(name: str, form: Any) -> Any:  # noqa: ANN401  msgspec's decoders take any type and give a value of it
    return msgspec.yaml.decode((resources.files(_PACKAGE) / "data" / name).read_bytes(), type=form)
