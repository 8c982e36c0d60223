"""What an engine's configuration comes to, whichever engine it is: its handlers, and each setting with its origin."""

import posixpath
import re
from typing import Final

import msgspec

from kube_gpucheck.evidence.toml import line_of

NVIDIA_BINARY: Final = re.compile(r"nvidia-container-runtime(?:\.(?:cdi|legacy|experimental|real))*")
"""Programs of the NVIDIA Container Toolkit that an engine calls in place of runc (upstream-facts, section 3)."""


class Origin(msgspec.Struct, frozen=True):
    """Where a setting is written: a file, its text, and the key in it."""

    path: str
    text: str = ""
    key: tuple[str, ...] = ()

    @property
    def line(self) -> int | None:
        """The line, counted from 1; None where the file is not one that has its keys on lines."""
        return line_of(self.text, self.key) if self.key and self.text else None

    def __str__(self) -> str:
        """Return it as `path:line`."""
        return self.path if self.line is None else f"{self.path}:{self.line}"


class Setting(msgspec.Struct, frozen=True):
    """One value of a configuration, under the key that the engine reads it from, and where it is written."""

    key: tuple[str, ...]
    value: object
    origin: Origin


class Undone(msgspec.Struct, frozen=True):
    """A setting that does not count. `winner`: what took its place. `instead`: the value that holds now.

    `instead` is None where the winner says nothing of this key: the engine's built-in value holds then.
    """

    setting: Setting
    winner: Origin
    instead: object = None


class Handler(msgspec.Struct, frozen=True):
    """A runtime handler of an engine.

    `binary`: the program that it calls, None if none is named (containerd then calls runc). `runtime_type`: the shim,
    "" if none is given. `systemd_cgroup`: None if it is not said. `origin`: what set it, None where the evidence does
    not tell (a dump, a running engine) or where it is built in.
    """

    name: str
    binary: str | None = None
    runtime_type: str = ""
    systemd_cgroup: bool | None = None
    origin: Origin | None = None

    @property
    def file(self) -> str | None:
        """The file that set it, None where that is not known."""
        return None if self.origin is None else self.origin.path

    @property
    def is_nvidia(self) -> bool:
        """Whether it is the NVIDIA Container Runtime: by its program, or by its name where no program is known."""
        if self.binary is not None:
            return NVIDIA_BINARY.fullmatch(posixpath.basename(self.binary)) is not None
        return names_nvidia(self.name)


class Lost(msgspec.Struct, frozen=True):
    """A setting for NVIDIA that one file makes and another undoes.

    `setting`: what was set, as the file says it. `origin`: where. `winner`: what took its place. `instead`: what holds
    now.
    """

    setting: str
    origin: Origin
    winner: Origin
    instead: str


class Configuration(msgspec.Struct, frozen=True):
    """What an engine's configuration comes to.

    `handlers` in order of name. `default`: the handler of pods that name none. `enable_cdi` and `cdi_spec_dirs`: None
    if not said. `cri_disabled`: whether the plugin that the kubelet talks to is switched off. `version`: the one by
    which the engine reads its files. `files`: those that were read, in the order in which the engine reads them.
    `lost`: settings for NVIDIA that were undone. `refused`: why this release would not start with these files, None if
    it would. `nri_disabled`, and `labels_containers` (for SELinux): None if not said. `systemd_cgroups`: for an engine
    with one cgroup driver for all handlers, whether it is systemd's; None where each handler has its own. `settings`:
    every value that counts, and `undone`: every one that does not, both empty where the files were not read one by one.
    """

    handlers: tuple[Handler, ...]
    default: str
    enable_cdi: bool | None = None
    cdi_spec_dirs: tuple[str, ...] | None = None
    cri_disabled: bool = False
    version: int = 1
    files: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()
    refused: str | None = None
    nri_disabled: bool | None = None
    labels_containers: bool | None = None
    systemd_cgroups: bool | None = None
    settings: tuple[Setting, ...] = ()
    undone: tuple[Undone, ...] = ()

    @property
    def nvidia(self) -> tuple[Handler, ...]:
        """The handlers that are NVIDIA's."""
        return tuple(one for one in self.handlers if one.is_nvidia)

    def find(self, name: str) -> Handler | None:
        """Return the handler of that name, or None if there is none."""
        return next((one for one in self.handlers if one.name == name), None)

    @property
    def default_is_nvidia(self) -> bool:
        """Whether pods that name no class run under NVIDIA's handler."""
        found = self.find(self.default)
        return found is not None and found.is_nvidia


def names_nvidia(name: str) -> bool:
    """Tell whether a handler's or class's name says that it is NVIDIA's."""
    return "nvidia" in name.lower()
