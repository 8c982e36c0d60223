"""CDI specifications of one node: what they define, and what of the host they name.

Source: Container Device Interface specification, `SPEC.md`; kinds: upstream-facts, section 3.
"""

import json
import posixpath
import re
from typing import TYPE_CHECKING, Final

import msgspec
import yaml

from kube_gpucheck.evidence.delivery import Mode
from kube_gpucheck.evidence.engine import not_asked
from kube_gpucheck.evidence.readings import GapError, derived, need
from kube_gpucheck.evidence.toolkit import ToolkitMode
from kube_gpucheck.model import Missing, MissingKind, Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.node import Node

KIND: Final = re.compile(r"(?:[a-z0-9.-]+\.)?nvidia\.com/[A-Za-z0-9_.-]+")
"""Kinds that are NVIDIA's: nvidia.com/gpu, management.nvidia.com/gpu, k8s.device-plugin.nvidia.com/gpu, …"""
FOLDERS: Final = ("/etc/cdi", "/var/run/cdi")
"""The folders that engines and toolkit read by default."""

_MAX_TEXT: Final = 4 * 1024 * 1024
_INJECTING: Final = re.compile(r"CDI|hook|error mounting")
"""What an error says of the step that failed: the engine's, the hook's, or runc's when it mounts what CDI names."""
_GONE: Final = re.compile(r"no such file or directory|not a device node|executable file not found")
_PATH: Final = re.compile(r"(/[A-Za-z0-9_.+@:%~/-]{1,400})")
_UNRESOLVED: Final = re.compile(r"unresolvable CDI devices? ([A-Za-z0-9_.:/=, \n-]{1,2000})")
_DEVICE: Final = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+=[A-Za-z0-9_.:-]+")


class _DeviceNode(msgspec.Struct, frozen=True, rename="camel"):
    path: str
    host_path: str = ""
    type: str = ""


class _Mount(msgspec.Struct, frozen=True, rename="camel"):
    host_path: str
    container_path: str


class _Hook(msgspec.Struct, frozen=True):
    path: str


class _Edits(msgspec.Struct, frozen=True, rename="camel"):
    device_nodes: tuple[_DeviceNode, ...] | None = None
    mounts: tuple[_Mount, ...] | None = None
    hooks: tuple[_Hook, ...] | None = None


class _Device(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    container_edits: _Edits = _Edits()


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    cdi_version: str
    kind: str
    devices: tuple[_Device, ...] | None = None
    container_edits: _Edits | None = None


class Named(msgspec.Struct, frozen=True, order=True):
    """Something of the host that a specification names. `what`: device node, mount or hook."""

    what: str
    path: str


class Specification(msgspec.Struct, frozen=True):
    """One file. `problem`: why it cannot be used, None if it can; its kind is then "" and it defines nothing."""

    path: str
    kind: str = ""
    devices: tuple[str, ...] = ()
    names: tuple[Named, ...] = ()
    problem: str | None = None

    @property
    def is_nvidia(self) -> bool:
        """Whether its kind is NVIDIA's; of a file that cannot be used, its name tells."""
        return KIND.fullmatch(self.kind) is not None if self.kind else "nvidia" in posixpath.basename(self.path)

    @property
    def defines(self) -> tuple[str, ...]:
        """The devices by their full names (`nvidia.com/gpu=0`)."""
        return tuple(f"{self.kind}={name}" for name in self.devices)


class Fault(msgspec.Struct, frozen=True):
    """Something that a specification names and that is not there. `because`: what says so."""

    path: str
    named: Named
    because: str


def parse(path: str, text: str) -> Specification:
    """Return what a specification says; one that cannot be read says why. Never raises."""
    if len(text) > _MAX_TEXT:
        return Specification(path, problem=f"{len(text)} characters, more than the {_MAX_TEXT} that are read")
    try:
        data = json.loads(text) if path.endswith(".json") else yaml.safe_load(text)
        found = msgspec.convert(data, _Document)
    except (ValueError, yaml.YAMLError, msgspec.MsgspecError, RecursionError) as error:
        return Specification(path, problem=" ".join(str(error).split())[:300])
    if "/" not in found.kind:
        return Specification(path, problem=f"kind '{found.kind}' is no vendor/class")
    everywhere = (found.container_edits or _Edits(), *(one.container_edits for one in found.devices or ()))
    names: dict[Named, None] = {}
    for edits in everywhere:
        names |= {Named("device node", one.host_path or one.path): None for one in edits.device_nodes or ()}
        names |= {Named("mount", one.host_path): None for one in edits.mounts or ()}
        names |= {Named("hook", one.path): None for one in edits.hooks or ()}
    devices = tuple(one.name for one in found.devices or ())
    return Specification(path, found.kind, devices, tuple(sorted(names)))


def unresolved(text: str) -> tuple[str, ...]:
    """Return the CDI devices that an error says nobody defines, as `vendor/class=name`."""
    return tuple(name.rstrip(".:") for found in _UNRESOLVED.findall(text) for name in _DEVICE.findall(found))


def gone(text: str) -> frozenset[str]:
    """Return the host paths that an error about a container says are not there; empty if it is about something else."""
    if not _GONE.search(text):
        return frozenset()
    return frozenset(path.rstrip(":.") for path in _PATH.findall(text[:8192]))


def _folder(path: str) -> str:
    """Return a folder's usual name: /var/run is /run."""
    path = path.rstrip("/")
    return f"/var{path}" if path.startswith("/run/") else path


class Cdi:
    """The CDI specifications of one node."""

    def __init__(self, node: "Node") -> None:
        """Keep the node."""
        self.node = node
        self.host = node.host

    @derived
    def specifications(self) -> tuple[Specification, ...]:
        """Every specification that may be NVIDIA's, by folder and name; empty if the folders hold none.

        A folder that was not looked at is passed over if another was. A file of another name than NVIDIA's that was
        not read is taken for another vendor's.
        """
        found: list[Specification] = []
        looked: Missing | None = None
        seen = False
        for folder in FOLDERS:
            listing = self.host.listing(folder)
            if isinstance(listing, Missing) and listing.kind is MissingKind.NOT_ASKED:
                looked = looked or listing
                continue
            seen = True
            entries = need(listing)
            for entry in () if entries is None else entries.entries:
                path = posixpath.join(folder, entry.name)
                if entry.type not in {"file", "link"} or not entry.name.endswith((".yaml", ".yml", ".json")):
                    continue
                text = self.host.file(path)
                if not_asked(text) and "nvidia" not in entry.name:
                    continue
                content = need(text)
                if content is not None:
                    found.append(parse(path, content))
        if not seen and looked is not None:
            raise GapError(looked)
        return tuple(one for one in found if one.is_nvidia)

    @derived
    def searched(self) -> tuple[str, ...]:
        """The folders in which whoever injects CDI devices here looks them up: the engine, or the toolkit's runtime.

        Source: the engine's `cdi_spec_dirs`, the toolkit's `spec-dirs`; both mean `FOLDERS` where they are not said.
        """
        declared = need(self.node.deliveries.declared)
        said: tuple[str, ...] | None = None
        if declared & {Mode.CDI_ENGINE, Mode.DRA} or not need(self.node.deliveries.by_handler):
            configuration = self.node.runtime.configuration
            said = None if not_asked(configuration) else need(configuration).cdi_spec_dirs
        else:
            found = self.node.runtime.toolkit.configuration
            content = None if not_asked(found) else need(found)
            said = None if content is None else content.spec_dirs
        return tuple(_folder(one) for one in said or FOLDERS)

    @derived
    def unsearched(self) -> tuple[Specification, ...]:
        """The specifications that lie in none of the folders that are searched."""
        folders = need(self.searched)
        return tuple(one for one in need(self.specifications) if posixpath.dirname(one.path) not in folders)

    @derived
    def errors(self) -> tuple[str, ...]:
        """What the pods of this node say of containers that could not be started, once each; empty without pods."""
        pods = self.node.pods
        found: dict[str, None] = {}
        for pod in () if not_asked(pods) else need(pods):
            for status in () if need(pod.outline).is_even else need(pod.statuses):
                states = [status.state] if status.state.waiting is None else [status.state, status.last_state]
                for state in states:
                    message = (state.waiting or state.terminated) and (
                        state.waiting.message if state.waiting else state.terminated.message if state.terminated else ""
                    )
                    if message:
                        found[message] = None
        return tuple(found)

    @derived
    def unresolved(self) -> tuple[str, ...]:
        """The devices that pods asked for in vain and that no specification in a searched folder defines, once each."""
        unsearched = need(self.unsearched) if need(self.specifications) else ()
        defined = {name for one in need(self.specifications) if one not in unsearched for name in one.defines}
        asked = {name: None for text in need(self.errors) for name in unresolved(text)}
        return tuple(name for name in asked if name not in defined and KIND.fullmatch(name.partition("=")[0]))

    @derived
    def faults(self) -> tuple[Fault, ...]:
        """What the specifications name and the host does not have: as it was listed, else as a pod's error says."""
        refused = frozenset[str]().union(*(gone(text) for text in need(self.errors) if _INJECTING.search(text)))
        found: list[Fault] = []
        for one in need(self.specifications):
            for named in one.names:
                reason = self._absence(named, refused)
                if reason is not None:
                    found.append(Fault(one.path, named, reason))
        return tuple(found)

    def _absence(self, named: Named, refused: frozenset[str]) -> str | None:
        entry = self.host.entry(named.path)
        if isinstance(entry, Seen):
            return "it is not on the host" if entry.value is None else None
        if entry.kind is not MissingKind.NOT_ASKED:
            need(entry)
        return "a container failed on it" if named.path in refused else None

    @derived
    def wanted(self) -> str | None:
        """The kind that must be defined here, None if this node's way of giving out GPUs needs no specification.

        The NVIDIA runtime in mode `cdi` looks devices up under its default kind; an engine that injects by itself
        is given names of the device plugin's kind. The other modes make what they need, or need none.
        """
        declared = need(self.node.deliveries.declared)
        if Mode.CDI_ENGINE in declared:
            return "k8s.device-plugin.nvidia.com/gpu"
        if not need(self.node.deliveries.by_handler) or need(self.node.runtime.toolkit.mode) is not ToolkitMode.CDI:
            return None
        configuration = need(self.node.runtime.toolkit.configuration)
        return None if configuration is None else configuration.default_kind

    @derived
    def twice(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Devices that two files of one folder define, with the files; a file in /var/run/cdi hides one in /etc/cdi.

        Source: CDI specification: of two folders the later one wins; within one it is a conflict, and the device is
        then not to be had.
        """
        places: dict[tuple[str, str], list[str]] = {}
        for one in need(self.specifications):
            for name in one.defines:
                places.setdefault((posixpath.dirname(one.path), name), []).append(one.path)
        return tuple((name, tuple(paths)) for (_, name), paths in places.items() if len(paths) > 1)
