"""The container runtime of one node: engine, its configuration on disk, what it runs with, the toolkit and CDI.

The facts at the end are what a diagnosis may ask for by name.
"""

import datetime
import posixpath
import re
from functools import cached_property
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence import containerd, crio, docker
from kube_gpucheck.evidence.cdi import Cdi
from kube_gpucheck.evidence.configuration import Configuration, Handler, names_nvidia
from kube_gpucheck.evidence.containerd import File
from kube_gpucheck.evidence.delivery import setting
from kube_gpucheck.evidence.engine import (
    CONFIGURATION,
    DAEMON_FILE,
    PLAIN_CONFIGURATION,
    TEMPLATES,
    Engine,
    EngineKind,
    moment,
    not_asked,
)
from kube_gpucheck.evidence.host import Host
from kube_gpucheck.evidence.libraries import is_there
from kube_gpucheck.evidence.readings import GapError, attempt, derived, need
from kube_gpucheck.evidence.stack import Component
from kube_gpucheck.evidence.toml import ConfigurationError, UndecidedError
from kube_gpucheck.evidence.toolkit import Toolkit
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.node import Node

DUMP: Final = "containerd config dump"
DROP_INS: Final = ("/etc/containerd/conf.d", "/etc/containerd/config.d")
"""Where `nvidia-ctk runtime configure` has written its drop-in since 1.18 (upstream-facts, section 3)."""
JIT_KIND: Final = "runtime.nvidia.com/gpu"
"""The kind that mode jit-cdi defines in memory; in an error it means that the making of it failed."""
DRIVER_CONTAINER_ROOT: Final = "/run/nvidia/driver"
LIBRARY_FOLDERS: Final = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "lib64",
    "usr/lib",
    "lib",
    "lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu",
)
"""Where the toolkit looks below a driver root. Source: nvidia-container-toolkit, internal/lookup/library.go."""
_WHOLE_DUMP_SINCE: Final = (2, 0, 6)
_CDI_SINCE: Final = (1, 7)
_CDI_DEFAULT_SINCE: Final = (2, 0)
_NRI_DEFAULT_SINCE: Final = (2, 0)
_NRI_FAILS: Final = re.compile(
    r"failed to find valid nri socket[^\n\"]{0,200}|unable to start NRI plugin server[^\n\"]{0,200}|"
    r"NRI plugin reconnect failed[^\n\"]{0,200}"
)
"""Source: nvidia-container-toolkit, cmd/nvidia-ctk-installer/container/runtime/nri/plugin.go and main.go."""
_DENIED: Final = re.compile(r"avc: +denied .{1,300}(?:/dev/nvidia|xserver_misc_device_t)")
_FLAPS: Final = re.compile(r"Pod sandbox changed, it will be killed")
_TELLS: Final = re.compile(r"[^#]{0,200}[\"'/]nvidia-container-runtime(?:[.\w]{0,40}[\"']|$)")
_REFUSED: Final = re.compile(
    r'no runtime for \\*"([^"\\]{1,200})\\*" is configured|failed to find runtime handler (\S{1,200})'
)


class Loaded(msgspec.Struct, frozen=True):
    """What the running engine has of the NVIDIA handlers that are configured.

    `how`: what says so. `missing`: handlers on disk that it does not have. `other`: those that it runs with another
    program, as (handler on disk, the running one's program).
    """

    how: str
    missing: tuple[Handler, ...] = ()
    other: tuple[tuple[Handler, str], ...] = ()


class Template(msgspec.Struct, frozen=True):
    """The template that a distribution renders the engine's configuration from."""

    path: str
    text: str

    @property
    def is_frozen(self) -> bool:
        """Whether it is a plain configuration that the GPU Operator's toolkit wrote, and no template at all."""
        return "{{" not in self.text and "/usr/local/nvidia/toolkit/" in self.text

    @property
    def keeps_nvidia(self) -> bool:
        """Whether a handler that the distribution detects, or one of its own, survives the next rendering."""
        return "nvidia" in self.text or re.search(r'\{\{-?\s*template\s+"base"', self.text) is not None


class _Loading(msgspec.Struct, frozen=True):
    """How far containerd's loader comes. `refused`: why it gives up, None if it does not."""

    files: tuple[File, ...] = ()
    refused: str | None = None


class Runtime:
    """The container runtime of one node."""

    def __init__(self, node: "Node") -> None:
        """Keep the node."""
        self.node = node
        self.host: Host = node.host

    @cached_property
    def engine(self) -> Engine:
        """The engine: which, of which distribution, and whether it answers."""
        return Engine(self.node)

    @cached_property
    def toolkit(self) -> Toolkit:
        """The NVIDIA Container Toolkit on the host."""
        return Toolkit(self.node)

    @cached_property
    def cdi(self) -> Cdi:
        """The CDI specifications on the host."""
        return Cdi(self.node)

    @derived
    def configuration(self) -> Configuration:
        """What the engine's files come to: as `containerd config dump` merges them, else by its release's own rule.

        The dump counts where it is of the engine's own files, and whole; RKE2, K3s, k0s and MicroK8s have others. Of
        files of version 1 or 2 containerd before 2.0.6 prints less than it reads.
        """
        if need(self.engine.kind) is EngineKind.CONTAINERD:
            path = need(self.engine.configuration_path)
            if path == PLAIN_CONFIGURATION or f"file:{path}" not in self.host.keys("file:"):
                printed = self.host.command(DUMP)
                command = None if not_asked(printed) else need(printed)
                if command is not None and command.status in {None, 0} and not self._dump_leaves_out():
                    found = self._dumped(command.text)
                    if path == PLAIN_CONFIGURATION or path in found.files:
                        return found
        return need(self.files)

    def _dump_leaves_out(self) -> bool:
        """Tell whether the dump may be of a release that prints less than it reads."""
        release = need(self.engine.release)
        return release is not None and (2, 0) <= release < _WHOLE_DUMP_SINCE

    def _dumped(self, text: str) -> Configuration:
        try:
            return containerd.dumped(text)
        except ConfigurationError as error:
            raise self._unparsable(str(error)) from error

    @derived
    def files(self) -> Configuration:
        """What the engine's files come to, worked out from the files alone, each setting with the line that made it."""
        kind = need(self.engine.kind)
        try:
            if kind is EngineKind.CONTAINERD:
                return containerd.effective(need(self.containerd_files), need(self.engine.release))
            if kind is EngineKind.CRI_O:
                return crio.effective(need(self._crio_files))
            if kind is EngineKind.DOCKER:
                return docker.effective(DAEMON_FILE, need(self.host.file(DAEMON_FILE)))
        except ConfigurationError as error:
            raise self._unparsable(str(error)) from error
        reason = f"the engine of {self.node.name} is none of containerd, CRI-O and Docker; its files are not read"
        raise GapError(Missing(MissingKind.NOT_ASKED, reason, "cluster/nodes.json"))

    @derived
    def refusal(self) -> str | None:
        """Why the engine would not start with its files as they are, None if it would. Names file and line."""
        if need(self.engine.kind) is not EngineKind.CONTAINERD:
            return need(self.files).refused
        loading = need(self._loading)
        if loading.refused is not None:
            return loading.refused
        try:
            return containerd.effective(loading.files, need(self.engine.release)).refused
        except UndecidedError as error:
            raise self._unparsable(str(error)) from error
        except ConfigurationError as error:
            return str(error)

    @derived
    def containerd_files(self) -> tuple[File, ...]:
        """The files of containerd in the order of loading: the main one, then imports, breadth first."""
        loading = need(self._loading)
        if loading.refused is not None:
            raise self._unparsable(loading.refused)
        return loading.files

    @derived
    def _loading(self) -> "_Loading":
        """The files of containerd as its loader goes through them, and why it gives up, if it does.

        Without the main file nothing is loaded, whatever stands in the drop-in folder that 2.2 and later print.
        """
        main, release = need(self.engine.configuration_path), need(self.engine.release)
        found: dict[str, File] = {}
        pending = [main]
        while pending:
            path = pending.pop(0)
            if path in found:
                continue
            try:
                text = need(self._text_of(path))
                if text is None and path == main:
                    break
                if text is None:
                    return _Loading(tuple(found.values()), f"{path} is imported, and there is no such file")
                found[path] = containerd.parse(path, text)
            except UndecidedError as error:
                raise self._unparsable(str(error)) from error
            except ConfigurationError as error:
                return _Loading(tuple(found.values()), str(error))
            for written in found[path].imports:
                pattern = containerd.import_pattern(path, written, release)
                pending += need(self._expanded(pattern)) if containerd.is_glob(pattern) else (pattern,)
        return _Loading(tuple(found.values()))

    def _text_of(self, path: str) -> Reading[str | None]:
        """Return a file's whole text, None if it is not there.

        Raises:
            ConfigurationError: it is a folder, which no engine reads.
        """
        reading = self.host.read(f"file:{path}")
        if isinstance(reading, Missing):
            entry = self.host.entry(path)
            if isinstance(entry, Seen) and entry.value is not None and entry.value.type == "dir":
                msg = f"{path}: it is a folder, expected a file"
                raise ConfigurationError(msg)
            return reading
        if reading.value.truncated:
            source = f"nodes/{self.node.name}/host.json#file:{path}"
            return Missing(MissingKind.UNPARSABLE, f"{path} was not read whole: it is longer than any real one", source)
        return self.host.file(path)

    def _expanded(self, pattern: str) -> Reading[tuple[str, ...]]:
        """Return the files that a glob means, in order of name: those listed, else those that were read.

        A folder that the one above it does not hold has none.
        """

        def derive() -> tuple[str, ...]:
            folder = posixpath.dirname(pattern)
            listing = self.host.listing(folder)
            if not not_asked(listing):
                entries = need(listing)
                names = () if entries is None else tuple(one.name for one in entries.entries)
                paths = [posixpath.join(folder, name) for name in names]
            else:
                paths = [key.removeprefix("file:") for key in self.host.keys(f"file:{folder}/")]
                if not paths and need(self.host.entry(folder)) is not None:
                    need(listing)
            return tuple(sorted(path for path in paths if containerd.matches(pattern, path)))

        return attempt(derive)

    @derived
    def _crio_files(self) -> tuple[tuple[str, str], ...]:
        found: list[tuple[str, str]] = []
        text = need(self.host.file(crio.MAIN))
        if text is not None:
            found.append((crio.MAIN, text))
        listing = self.host.listing(crio.DROP_INS)
        if not_asked(listing):
            paths = [key.removeprefix("file:") for key in self.host.keys(f"file:{crio.DROP_INS}/")]
            if not paths:
                need(listing)
        else:
            entries = need(listing)
            paths = [posixpath.join(crio.DROP_INS, one.name) for one in (entries.entries if entries else ())]
        for path in sorted(paths):
            text = need(self.host.file(path))
            if text is not None:
                found.append((path, text))
        return tuple(found)

    @derived
    def stray_drop_ins(self) -> tuple[str, ...]:
        """Files with an NVIDIA handler in the toolkit's drop-in folders that no `imports` of the engine means.

        Beside an embedded engine those folders are another engine's: `other_engine_is_configured`.
        """
        if need(self.engine.kind) is not EngineKind.CONTAINERD or need(self.engine.distribution).embeds_its_engine:
            return ()
        read = {one.path for one in need(self.containerd_files)}
        stray: list[str] = []
        for folder in DROP_INS:
            for path in sorted(self._known_below(folder)):
                text = need(self.host.file(path)) if path not in read else None
                if text is not None and self._has_nvidia(path, text):
                    stray.append(path)
        return tuple(stray)

    def _has_nvidia(self, path: str, text: str) -> bool:
        try:
            return containerd.parse(path, text).mentions_nvidia()
        except ConfigurationError as error:
            raise self._unparsable(str(error)) from error

    def _unparsable(self, reason: str) -> GapError:
        return GapError(Missing(MissingKind.UNPARSABLE, reason, f"nodes/{self.node.name}/host.json"))

    def _known_below(self, folder: str) -> tuple[str, ...]:
        return tuple(
            path for key in self.host.keys(f"file:{folder}/") if (path := key.removeprefix("file:")).endswith(".toml")
        )

    @derived
    def template(self) -> Template | None:
        """The template in use, None if the distribution has none or it was not looked for."""
        names = TEMPLATES.get(need(self.engine.distribution), ())
        folder = posixpath.dirname(need(self.engine.configuration_path))
        for name in names:
            text = self.host.file(posixpath.join(folder, name))
            content = None if not_asked(text) else need(text)
            if content is not None:
                return Template(posixpath.join(folder, name), content)
        return None

    @derived
    def handler_names(self) -> frozenset[str]:
        """The handlers of this node by name: those of its files, else those that the engine told the kubelet of."""
        configuration = self.configuration
        if not not_asked(configuration):
            return frozenset(one.name for one in need(configuration).handlers)
        told = need(self._told)
        if not told:
            need(configuration)
        return told

    @derived
    def _told(self) -> frozenset[str]:
        """The handlers in status.runtimeHandlers; empty proves nothing (upstream-facts, section 6)."""
        document = self.node.object
        if not_asked(document):
            return frozenset()
        return frozenset(one.name for one in need(document).status.runtime_handlers or () if one.name)

    @derived
    def default_is_nvidia(self) -> bool:
        """Whether pods that name no class run under NVIDIA's handler. Source: the files, else the running engine."""
        configuration = self.configuration
        if not not_asked(configuration):
            return need(configuration).default_is_nvidia
        running = self.engine.running
        found = None if not_asked(running) else need(running)
        if found is None or found.default is None or found.handlers is None:
            return need(configuration).default_is_nvidia
        return any(one.name == found.default and one.is_nvidia for one in found.handlers)

    @derived
    def loaded(self) -> Loaded:
        """Whether the running engine has the NVIDIA handlers of its configuration.

        By its own answer (`crictl info`), else by what it told the kubelet, else by its log's word on its last start,
        else by its age against that of its configuration, else by what became of pods that name the handler.
        """
        configured = need(self.configuration).nvidia
        log = self.host.log("containerd")
        started = None if not_asked(log) else containerd.started_with(need(log))
        answer = self.engine.answer
        if isinstance(answer, Seen) and not answer.value.answers:
            reason = f"the engine does not answer ({answer.value.how}): {answer.value.why}"
            raise GapError(Missing(MissingKind.ERROR, reason, f"nodes/{self.node.name}/host.json"))
        running = self.engine.running
        said = None if not_asked(running) else need(running)
        if said is not None and said.handlers is not None:
            return _compared(configured, said.handlers, "'crictl info'")
        told = need(self._told)
        if told:
            missing = tuple(one for one in configured if one.name not in told)
            return Loaded("node.status.runtimeHandlers", missing)
        if started is not None:
            return _compared(configured, started, "what the engine's log says of its last start")
        if not not_asked(self.host.command(f"systemctl show {need(self.engine.unit)}")):
            stale = need(self._changed_since_start)
            return Loaded("the configuration's age against the engine's start", configured if stale else ())
        return need(self._by_pods)

    @derived
    def _changed_since_start(self) -> bool:
        """Whether a file of the configuration that sets an NVIDIA handler is newer than the engine."""
        started = need(self.engine.started_at)
        if started is None:
            line = f"systemctl show {need(self.engine.unit)}"
            says = "says that the engine's service is not active"
            absent = need(self.host.command(line)) is None
            reason = (
                "no systemd runs, and no engine among the processes that were read" if absent else f"'{line}' {says}"
            )
            raise GapError(Missing(MissingKind.ERROR, reason, f"nodes/{self.node.name}/host.json"))
        set_by = {one.file for one in need(self.files).nvidia if one.file is not None}
        return any(need(self._modified(path)) > started for path in sorted(set_by))

    def _modified(self, path: str) -> Reading[datetime.datetime]:
        def derive() -> datetime.datetime:
            entry = need(self.host.entry(path))
            text = None if entry is None else entry.modified
            found = None if text is None else moment(text, self.node.cluster.gathered_at)
            if found is None:
                source = f"nodes/{self.node.name}/host.json#stat:{path}"
                raise GapError(Missing(MissingKind.ERROR, f"when '{path}' was last changed is not known", source))
            return found

        return attempt(derive)

    @derived
    def _by_pods(self) -> Loaded:
        configured = need(self.configuration).nvidia
        refused = need(self.refused_handlers)
        missing = tuple(one for one in configured if one.name in refused)
        if missing:
            return Loaded("events of pods", missing)
        classes = {one.metadata.name: one.handler for one in need(self.node.cluster.runtime_classes)}
        used = {classes.get(name) for pod in need(self.node.pods) if (name := _running_class(pod)) is not None}
        if all(one.name in used for one in configured):
            return Loaded("pods that run under it")
        reason = f"nothing that was read tells whether the engine of {self.node.name} has read its configuration"
        raise GapError(Missing(MissingKind.NOT_ASKED, reason, f"nodes/{self.node.name}/host.json", "--probe"))

    @derived
    def refused_handlers(self) -> dict[str, str]:
        """Handlers that the engine did not know for a pod that still waits here, with the event's text."""
        found: dict[str, str] = {}
        for pod in need(self.node.pods):
            if need(pod.outline).phase != "Pending":
                continue
            for event in need(pod.events):
                match = _REFUSED.search(event.message)
                if match is not None:
                    found[match[1] or match[2]] = event.message
        return found

    @derived
    def cdi_is_enabled(self) -> bool:
        """Whether the engine itself injects CDI devices. Source: its release, its own answer, its configuration."""
        if need(self.engine.kind) is EngineKind.CRI_O:
            return True  # since CRI-O 1.23, without a switch
        release = need(self.engine.release)
        if release is not None and release < _CDI_SINCE:
            return False
        running = self.engine.running
        said = None if not_asked(running) else need(running)
        if said is not None and said.enable_cdi is not None:
            return said.enable_cdi
        written = need(self.configuration).enable_cdi
        if written is not None:
            return written
        if release is None:
            reason = f"the release of {self.node.name}'s engine is not known, and no file sets 'enable_cdi'"
            raise GapError(Missing(MissingKind.ERROR, reason, "cluster/nodes.json"))
        return release >= _CDI_DEFAULT_SINCE

    @derived
    def nri_is_enabled(self) -> bool:
        """Whether the engine lets NRI plugins change containers. Source: its configuration, else its release."""
        said = need(self.configuration).nri_disabled
        if said is not None:
            return not said
        release = need(self.engine.release)
        if release is None:
            reason = f"the release of {self.node.name}'s engine is not known, and no file says whether NRI is off"
            raise GapError(Missing(MissingKind.ERROR, reason, "cluster/nodes.json"))
        return need(self.engine.kind) is EngineKind.CRI_O or release >= _NRI_DEFAULT_SINCE

    @derived
    def nri_complaint(self) -> str | None:
        """What the toolkit's container on this node says of an NRI that it does not reach, None if nothing."""
        for daemonset in need(self.node.deliveries.serving(Component.TOOLKIT)):
            name = need(daemonset.main_container).name
            for pod in need(daemonset.pods):
                log = pod.log(name)
                if pod.node_name != self.node.name or not_asked(log):
                    continue
                found = _NRI_FAILS.findall(need(log)[-200_000:])
                if found:
                    return str(found[-1])
        return None

    @derived
    def gives_systemd_cgroups(self) -> bool:
        """Whether containers under NVIDIA's handler get their cgroups from systemd."""
        configuration = need(self.configuration)
        if configuration.systemd_cgroups is not None:
            return configuration.systemd_cgroups
        return any(one.systemd_cgroup for one in configuration.nvidia)

    @derived
    def cgroups_are_unified(self) -> bool:
        """Whether the host has cgroup v2 alone. Source: /sys/fs/cgroup/cgroup.controllers, which only that has."""
        return need(self.host.entry("/sys/fs/cgroup/cgroup.controllers")) is not None

    @derived
    def flapping_pods(self) -> tuple[str, ...]:
        """Pods of this node whose sandbox the kubelet kills again and again. Source: events SandboxChanged."""
        flapping = [pod for pod in need(self.node.pods) if any(_FLAPS.search(one.message) for one in need(pod.events))]
        return tuple(f"{pod.subject}" for pod in flapping)

    @derived
    def links_of_devices(self) -> bool:
        """Whether /dev/char has a link to a device node of NVIDIA's, by which systemd knows it."""
        listing = need(self.host.listing("/dev/char"))
        return listing is not None and any(one.name.startswith("195:") for one in listing.entries)

    @derived
    def selinux_boolean(self) -> bool:
        """Whether the policy lets any container use device nodes. Source: container_use_devices, `now pending`."""
        text = need(self.host.file("/sys/fs/selinux/booleans/container_use_devices"))
        return text is not None and text.split()[:1] == ["1"]

    @derived
    def selinux_denials(self) -> tuple[str, ...]:
        """The lines of the kernel's log by which SELinux refused somebody a device node of NVIDIA's."""
        printed = self.host.command("dmesg")
        command = None if not_asked(printed) else need(printed)
        text = need(self.host.log("kernel")) if command is None else command.text
        return tuple(line.strip() for line in text.splitlines() if _DENIED.search(line))

    @derived
    def selinux_enforces(self) -> bool:
        """Whether SELinux is there and enforcing. Source: /sys/fs/selinux/enforce."""
        return (need(self.host.file("/sys/fs/selinux/enforce")) or "").strip() == "1"

    @derived
    def driver_root(self) -> str:
        """Where the driver's files are looked for: as the toolkit is told, else a driver container's folder, else /."""
        configuration = self.toolkit.configuration
        said = None if not_asked(configuration) else need(configuration)
        if said is not None and said.root_is_said:
            return said.root
        return DRIVER_CONTAINER_ROOT if need(self.node.deliveries.serving(Component.DRIVER)) else "/"

    @derived
    def driver_roots(self) -> tuple[tuple[str, str], ...]:
        """Who looks for the driver where, as (component, root): those that say it, and the toolkit if it is there."""
        found: list[tuple[str, str]] = []
        if need(self.toolkit.is_installed):
            configuration = need(self.toolkit.configuration)
            found.append(("the toolkit", "/" if configuration is None else configuration.root))
        if need(self.node.deliveries.serving(Component.DRIVER)):
            found.append(("the driver container", DRIVER_CONTAINER_ROOT))
        return (*found, *need(self._said("NVIDIA_DRIVER_ROOT", "--nvidia-driver-root")))

    @derived
    def dev_roots(self) -> tuple[tuple[str, str], ...]:
        """Who looks for the device nodes where, as (component, root): those that say it."""
        return need(self._said("NVIDIA_DEV_ROOT", "--nvidia-dev-root"))

    def _said(self, variable: str, flag: str) -> Reading[tuple[tuple[str, str], ...]]:
        def derive() -> tuple[tuple[str, str], ...]:
            found: list[tuple[str, str]] = []
            for component in (Component.DEVICE_PLUGIN, Component.GFD, Component.DRA_KUBELET_PLUGIN):
                for daemonset in need(self.node.deliveries.serving(component)):
                    said = setting(need(daemonset.main_container), variable, flag)
                    if said:
                        found.append((f"{daemonset.namespace}/{daemonset.name}", said))
            return tuple(found)

        return attempt(derive)

    def library(self, name: str) -> Reading[str | None]:
        """Return where a library of the driver is found, None if it is not: by the loader's cache, or in the root."""

        def derive() -> str | None:
            root = need(self.driver_root)
            return need(self._cached(name)) if root == "/" else need(self._below(root, name))

        return attempt(derive)

    def _cached(self, name: str) -> Reading[str | None]:
        def derive() -> str | None:
            line = "ldconfig -p"
            command = need(self.host.command(line))
            source = f"nodes/{self.node.name}/host.json#exec:{line}"
            if command is None:
                raise GapError(Missing(MissingKind.ERROR, f"there is no ldconfig on {self.node.name} to ask", source))
            for row in command.text.splitlines():
                path = row.rpartition("=>")[2].strip()
                if row.strip().startswith(f"{name} ") and "=>" in row and is_there(self.host, path):
                    return path
            tells = command.filtered is None or re.search(command.filtered, name) is not None
            if command.status not in {None, 0} or command.truncated or not tells or not command.text.strip():
                raise GapError(Missing(MissingKind.ERROR, f"'{line}' on {self.node.name} was not had whole", source))
            return None

        return attempt(derive)

    def _below(self, root: str, name: str) -> Reading[str | None]:
        def derive() -> str | None:
            absent = 0
            first: Missing | None = None
            for folder in LIBRARY_FOLDERS:
                path = posixpath.join(root, folder, name)
                entry = self.host.entry(path)
                if isinstance(entry, Missing) and entry.kind is MissingKind.NOT_ASKED:
                    first = first or entry
                    continue
                if need(entry) is not None:
                    return path
                absent += 1
            if first is not None and not absent:
                raise GapError(first)
            return None

        return attempt(derive)

    # What a diagnosis asks for by name.

    @derived
    def handler_in_files(self) -> bool:
        """Whether the engine's configuration on disk has a handler for NVIDIA."""
        return bool(need(self.configuration).nvidia)

    @derived
    def handler_loaded(self) -> bool:
        """Whether the running engine has every NVIDIA handler of its configuration; False if it has none to load."""
        if not need(self.handler_in_files):
            return False
        loaded = need(self.loaded)
        return not loaded.missing and not loaded.other

    @derived
    def toolkit_installed(self) -> bool:
        """Whether nvidia-container-runtime is on the host."""
        return need(self.toolkit.is_installed)

    @derived
    def toolkit_newer_than_engine_start(self) -> bool:
        """Whether nvidia-container-runtime was changed after the engine's service started."""
        entry = need(self.toolkit.runtime_entry)
        started = need(self.engine.started_at)
        if entry is None or started is None:
            return False
        path = need(self.toolkit.runtime_path)
        return path is not None and need(self._modified(path)) > started

    @derived
    def engine_answers(self) -> bool:
        """Whether the engine answers for CRI."""
        return need(self.engine.answer).answers

    @derived
    def drop_in_is_not_imported(self) -> bool:
        """Whether the toolkit's drop-in is there and no file of the engine imports it."""
        return bool(need(self.stray_drop_ins))

    @derived
    def told_elsewhere(self) -> tuple[str, ...]:
        """Where another engine than the kubelet's was told of NVIDIA, as `path:line`; none if none that was read.

        Missing where no file of another engine was read.
        """
        own = {need(self.engine.configuration_path), *(one.path for one in need(self._own_files))}
        paths = [PLAIN_CONFIGURATION, DAEMON_FILE, *CONFIGURATION.values(), crio.MAIN]
        for folder in (*DROP_INS, crio.DROP_INS):
            paths += [key.removeprefix("file:") for key in self.host.keys(f"file:{folder}/")]
        found: list[str] = []
        read = False
        for path in dict.fromkeys(paths):
            text = self.host.file(path)
            if path in own or not_asked(text) or self._is_a_drop_in_of_mine(path):
                continue
            read = True
            rows = enumerate((need(text) or "").splitlines(), 1)
            found += [f"{path}:{row}" for row, words in rows if _TELLS.match(words)][:1]
        if not read:
            reason = f"no file of another engine was read on {self.node.name}"
            raise GapError(Missing(MissingKind.NOT_ASKED, reason, f"nodes/{self.node.name}/host.json", "--probe"))
        return tuple(found)

    def _is_a_drop_in_of_mine(self, path: str) -> bool:
        """Tell whether a path is a drop-in of the kubelet's engine that nothing imports: `stray_drop_ins` has it."""
        kind, main = need(self.engine.kind), need(self.engine.configuration_path)
        if path.startswith("/etc/crio/"):
            return kind is EngineKind.CRI_O
        return kind is EngineKind.CONTAINERD and main == PLAIN_CONFIGURATION and path.startswith(DROP_INS)

    @derived
    def _own_files(self) -> tuple[File, ...]:
        return need(self._loading).files if need(self.engine.kind) is EngineKind.CONTAINERD else ()

    @derived
    def other_engine_is_configured(self) -> bool:
        """Whether another engine than the kubelet's has a handler for NVIDIA; False where none was read."""
        elsewhere = self.told_elsewhere
        return not not_asked(elsewhere) and bool(need(elsewhere))

    @derived
    def handler_program_is_missing(self) -> bool:
        """Whether a handler for NVIDIA names a program that is not there."""
        named = [one.binary for one in need(self.configuration).nvidia if one.binary and one.binary.startswith("/")]
        return any(need(self.host.entry(path)) is None for path in named)

    @derived
    def cdi_spec_is_missing(self) -> bool:
        """Whether a kind that this node needs, or that a pod asked for, is defined by no specification."""
        kinds = {one.kind for one in need(self.cdi.specifications)}
        asked = {name.partition("=")[0] for name in need(self.cdi.unresolved)} - {JIT_KIND}
        return not asked <= kinds or need(self.cdi.wanted) not in {None, *kinds}

    @derived
    def cdi_spec_is_stale(self) -> bool:
        """Whether a specification names a device node or a file of the driver that is not there."""
        return any(one.named.what != "hook" for one in need(self.cdi.faults))

    @derived
    def cdi_hook_is_missing(self) -> bool:
        """Whether a specification calls a helper program that is not there."""
        return any(one.named.what == "hook" for one in need(self.cdi.faults))

    @derived
    def cdi_jit_failed(self) -> bool:
        """Whether a container failed on a device that the NVIDIA runtime makes by itself (runtime.nvidia.com/gpu)."""
        return any(name.startswith(f"{JIT_KIND}=") for name in need(self.cdi.unresolved))

    @derived
    def import_replaced_handler(self) -> bool:
        """Whether a later file undid a setting for NVIDIA that an earlier one makes."""
        return bool(need(self.files).lost)

    @derived
    def import_dropped_default(self) -> bool:
        """Whether one of the engine's files defines the default handler, and together they no longer do."""
        merged = need(self.files)
        if merged.find(merged.default) is not None:
            return False
        return any(one.defines(merged.default) for one in need(self.containerd_files))

    @derived
    def distribution_name(self) -> str:
        """The distribution's name: rke2, k3s, k0s, microk8s, openshift, gke, eks, talos, bottlerocket or plain."""
        return need(self.engine.distribution).value

    @derived
    def distribution_detects_nvidia(self) -> bool:
        """Whether the distribution writes the handler by itself when its service starts (RKE2, K3s)."""
        return need(self.engine.distribution).detects_nvidia_itself


def class_is_nvidia(cluster: "Cluster", name: str, nodes: "tuple[Node, ...]") -> Reading[bool | None]:
    """Return whether a RuntimeClass leads to NVIDIA's handler, None if there is no such class.

    Told by the handler's name; where that does not say it, by the program that the nodes' engines have for it.
    """

    def derive() -> bool | None:
        found = next((one for one in need(cluster.runtime_classes) if one.metadata.name == name), None)
        if found is None:
            return None
        if names_nvidia(found.handler):
            return True
        for node in nodes:
            handler = need(node.runtime.configuration).find(found.handler)
            if handler is None or not handler.is_nvidia:
                return False
        return bool(nodes)

    return attempt(derive)


def _compared(configured: tuple[Handler, ...], handlers: tuple[Handler, ...], how: str) -> Loaded:
    running = {one.name: one for one in handlers}
    missing = tuple(one for one in configured if one.name not in running)
    other = tuple(
        (one, mine)
        for one in configured
        if one.name in running and (mine := running[one.name].binary) is not None and mine != one.binary
    )
    return Loaded(how, missing, other)


def _running_class(pod: object) -> str | None:
    known = need(pod.outline)  # type: ignore[attr-defined]  # a Pod; its module imports this one's user
    if known.phase != "Running":
        return None
    name: str | None = known.runtime_class
    return name
