"""The NVIDIA Container Toolkit on one node: its programs, its version, its configuration and the mode it works in.

Source: nvidia-container-toolkit `internal/info/auto.go`, `internal/config` (upstream-facts, section 3).
"""

import enum
import posixpath
import re
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.bundle import Entry
from kube_gpucheck.evidence.engine import not_asked
from kube_gpucheck.evidence.readings import GapError, derived, need
from kube_gpucheck.evidence.stack import Component, version_of
from kube_gpucheck.evidence.toml import ConfigurationError, as_table, load_toml, strings, text_of
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.node import Node

RUNTIME: Final = "nvidia-container-runtime"
HOOK: Final = "nvidia-container-runtime-hook"
CLI: Final = "nvidia-container-cli"
FOLDERS: Final = ("/usr/bin", "/usr/local/nvidia/toolkit", "/usr/local/bin", "/opt/nvidia/toolkit")
"""Where packages, the GPU Operator (by default and on k0s or Talos) and builds by hand put the programs."""
_OPERATOR_FILE: Final = ".config/nvidia-container-runtime/config.toml"
_FILE: Final = "/etc/nvidia-container-runtime/config.toml"
_VERSION: Final = re.compile(r"version:? v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,6}))?")
_JIT_SINCE: Final = (1, 18)
_CDI_SINCE: Final = (1, 11)


class ToolkitMode(enum.Enum):
    """How the NVIDIA runtime gives a container the GPU."""

    LEGACY = "legacy"
    CSV = "csv"
    CDI = "cdi"
    JIT_CDI = "jit-cdi"

    @property
    def since(self) -> tuple[int, int]:
        """The first release that knows it."""
        match self:
            case ToolkitMode.JIT_CDI:
                return _JIT_SINCE
            case ToolkitMode.CDI:
                return _CDI_SINCE
            case ToolkitMode.LEGACY | ToolkitMode.CSV:
                return (1, 0)


class ToolkitConfiguration(msgspec.Struct, frozen=True):
    """The toolkit's `config.toml`. `mode` as written; `root` "/" if not said; paths None if not said.

    `accepts_variable`: whether containers without privileges may ask for GPUs by NVIDIA_VISIBLE_DEVICES.
    """

    path: str
    mode: str = "auto"
    root: str = "/"
    root_is_said: bool = False
    ldconfig: str | None = None
    no_cgroups: bool = False
    cli_path: str | None = None
    hook_path: str | None = None
    runtimes: tuple[str, ...] | None = None
    accepts_variable: bool = True
    default_kind: str = "nvidia.com/gpu"
    spec_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")


class Toolkit:
    """The toolkit of one node."""

    def __init__(self, node: "Node") -> None:
        """Keep the node."""
        self.node = node
        self.host = node.host

    def find(self, program: str, *more: str) -> Reading[str | None]:
        """Return where a program is, None if it is nowhere; `more` are further paths.

        A folder that was not looked at is passed over, but for the one in which packages put programs: without it
        nothing is known to be absent.
        """
        packaged: Missing | None = None
        for place, path in enumerate((*(f"{folder}/{program}" for folder in FOLDERS), *more)):
            entry = self.host.entry(path)
            if isinstance(entry, Missing):
                if entry.kind is not MissingKind.NOT_ASKED:
                    return entry
                packaged = entry if place == 0 else packaged
            elif entry.value is not None:
                return Seen(path)
        return packaged or Seen(None)

    @derived
    def cli_path(self) -> str | None:
        """Where nvidia-container-cli is, None if it is nowhere, the path that the configuration names included."""
        found = need(self.find(CLI))
        if found is not None or not_asked(self.configuration):
            return found
        said = need(self.configuration)
        return found if said is None or said.cli_path is None else need(self.find(CLI, said.cli_path))

    @derived
    def runtime_path(self) -> str | None:
        """Where nvidia-container-runtime is, None if it is nowhere that was looked at, the handlers' paths included."""
        found = self.find(RUNTIME)
        if isinstance(found, Seen) and found.value is not None:
            return found.value
        if isinstance(found, Missing) and found.kind is not MissingKind.NOT_ASKED:
            need(found)
        configuration = self.node.runtime.configuration
        named = () if not_asked(configuration) else need(configuration).nvidia
        paths = tuple(one.binary for one in named if one.binary and one.binary.startswith("/"))
        return need(self.find(RUNTIME, *paths))

    @derived
    def runtime_entry(self) -> Entry | None:
        """The program's entry, with the time of its last change; None if it is not there."""
        path = need(self.runtime_path)
        return None if path is None else need(self.host.entry(path))

    @derived
    def is_installed(self) -> bool:
        """Whether nvidia-container-runtime is there."""
        return need(self.runtime_path) is not None

    @derived
    def version(self) -> tuple[int, int]:
        """Major and minor number of the toolkit's version."""
        major, minor, _ = need(self.release)
        return major, minor

    @derived
    def release(self) -> tuple[int, int, int]:
        """The numbers of the toolkit's version.

        Source: `nvidia-ctk --version`, else the runtime's own; where neither is in the search path and the GPU Operator
        put the programs, the image of its toolkit.
        """
        asked = False
        for program in ("nvidia-ctk", RUNTIME):
            line = f"{program} --version"
            printed = self.host.command(line)
            if not_asked(printed):
                continue
            asked = True
            command = need(printed)
            found = _VERSION.search(command.text) if command is not None else None
            if found is not None:
                return int(found[1]), int(found[2]), int(found[3] or 0)
        source = f"nodes/{self.node.name}/host.json#exec:nvidia-ctk --version"
        if asked:
            if need(self.configuration_path) != _FILE:
                for one in need(self.node.deliveries.serving(Component.TOOLKIT)):
                    shipped = version_of(need(one.main_container).image)
                    if shipped is not None:
                        return shipped[0], shipped[1], (*shipped, 0)[2]
            reason = "neither nvidia-ctk nor nvidia-container-runtime told the toolkit's version"
            raise GapError(Missing(MissingKind.ERROR, reason, source))
        reason = f"the toolkit's version was not read on {self.node.name}"
        raise GapError(Missing(MissingKind.NOT_ASKED, reason, source, "--probe"))

    @derived
    def configuration_path(self) -> str:
        """Where the toolkit's `config.toml` lies: beside the programs where the GPU Operator put them, else in /etc."""
        path = need(self.runtime_path)
        folder = "" if path is None else posixpath.dirname(path)
        return posixpath.join(folder, _OPERATOR_FILE) if folder.endswith("/nvidia/toolkit") else _FILE

    @derived
    def problem(self) -> str | None:
        """Why the toolkit cannot read its configuration, None if it can or if there is no file."""
        path = need(self.configuration_path)
        key = f"file:{path}"
        read = need(self.host.read(key))
        text = need(self.host.file(path))
        if text is None:
            return None
        try:
            parse(path, text)
        except ConfigurationError as error:
            if read.truncated:
                source = f"nodes/{self.node.name}/host.json#{key}"
                raise GapError(
                    Missing(MissingKind.UNPARSABLE, f"{error}; the file was not read whole", source)
                ) from error
            return str(error)
        return None

    @derived
    def configuration(self) -> ToolkitConfiguration | None:
        """The toolkit's configuration, None if there is no file: its defaults hold then."""
        path = need(self.configuration_path)
        text = need(self.host.file(path))
        if text is None:
            return None
        try:
            return parse(path, text)
        except ConfigurationError as error:
            source = f"nodes/{self.node.name}/host.json#file:{path}"
            raise GapError(Missing(MissingKind.UNPARSABLE, str(error), source)) from error

    @derived
    def mode(self) -> ToolkitMode:
        """The mode that NVIDIA's runtime works in: what is written, or what `auto` comes to with this version.

        A mode that no release knows is missing here; RTM-008 judges it.
        """
        configuration = need(self.configuration)
        written = "auto" if configuration is None else configuration.mode
        if written == "auto":
            return auto_mode(need(self.version), tegra=need(self.node.is_tegra))
        found = next((mode for mode in ToolkitMode if mode.value == written), None)
        if found is None:
            path = need(self.configuration_path)
            source = f"nodes/{self.node.name}/host.json#file:{path}"
            raise GapError(Missing(MissingKind.UNPARSABLE, f"{path}: mode '{written}' is none that is known", source))
        return found


def auto_mode(version: tuple[int, int], *, tegra: bool) -> ToolkitMode:
    """Return what `mode = "auto"` comes to (upstream-facts, section 3)."""
    if tegra:
        return ToolkitMode.CSV
    return ToolkitMode.JIT_CDI if version >= _JIT_SINCE else ToolkitMode.LEGACY


def parse(path: str, text: str) -> ToolkitConfiguration:
    """Return what a `config.toml` of the toolkit says.

    Raises:
        ConfigurationError: it is no TOML, or a field has a wrong type.
    """
    data = load_toml(path, text)
    cli = as_table(data.get("nvidia-container-cli"), f"{path}: nvidia-container-cli")
    runtime = as_table(data.get("nvidia-container-runtime"), f"{path}: nvidia-container-runtime")
    hook = as_table(data.get("nvidia-container-runtime-hook"), f"{path}: nvidia-container-runtime-hook")
    modes = as_table(runtime.get("modes"), f"{path}: modes")
    cdi = as_table(modes.get("cdi"), f"{path}: modes.cdi")
    root = text_of(cli, "root", path)
    runtimes = runtime.get("runtimes")
    folders = cdi.get("spec-dirs")
    return ToolkitConfiguration(
        path,
        text_of(runtime, "mode", path) or "auto",
        root or "/",
        root is not None,
        text_of(cli, "ldconfig", path),
        cli.get("no-cgroups") is True,
        text_of(cli, "path", path),
        text_of(hook, "path", path),
        None if runtimes is None else strings(runtimes, f"{path}: runtimes"),
        data.get("accept-nvidia-visible-devices-envvar-when-unprivileged") is not False,
        text_of(cdi, "default-kind", path) or "nvidia.com/gpu",
        ("/etc/cdi", "/var/run/cdi") if folders is None else strings(folders, f"{path}: spec-dirs"),
    )
