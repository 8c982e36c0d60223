"""The device plugin on one node: its pods, what its log proves, its effective configuration, what it should offer.

Sources: k8s-device-plugin 0.7 to 0.20 (log lines, flags), GKE's container-engine-accelerators, the kubelet's device
manager (capacity stays and allocatable becomes 0 when a plugin's endpoint ends).
"""

import posixpath
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.allocation import PLUGIN_FOLDER, nvidia_resources
from kube_gpucheck.evidence.documents import ConfigMapDocument, Container, PodSpec
from kube_gpucheck.evidence.gpu import GpuIdentity
from kube_gpucheck.evidence.readings import attempt, derived, need
from kube_gpucheck.evidence.sharing import (
    CONFIG_LABEL,
    DEFAULT_RESOURCE,
    ConfigError,
    PluginConfig,
    choose_entry,
    parse_config,
    parse_printed,
)
from kube_gpucheck.evidence.stack import Component, UnreadSharing, recognise
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.daemonset import DaemonSet
    from kube_gpucheck.evidence.node import Node
    from kube_gpucheck.evidence.pod import Pod

_START: Final = re.compile(r"Starting plugins\.|device-plugin started$", re.IGNORECASE)
_REGISTERED: Final = re.compile(r"Registered device plugin(?: for '([^']{1,300})')? with Kubelet", re.IGNORECASE)
_PROVIDER_REGISTERED: Final = re.compile(r"device-plugin registered with the kubelet", re.IGNORECASE)
_STOPPED: Final = re.compile(r"Stopping to serve '([^']{1,300})'")
_WAITS: Final = re.compile(r"No devices found\. Waiting indefinitely")
_PLATFORM: Final = re.compile(r"Detected platform: (\w+)")
_LEGACY_PLATFORM: Final = re.compile(r"Detected (non-)?(NVML|Tegra) platform", re.IGNORECASE)
_CONFIG: Final = re.compile(r"Running with config:")
_XID: Final = re.compile(r"XidCriticalError: Xid=(\d+) on Device=([^\s,;]+)")
_UNHEALTHY: Final = re.compile(r"'([^']{1,300})' device marked unhealthy: (\S+)")
_TOO_OLD: Final = re.compile(r"Device (\S+) is too old to support healthchecking")
_SKIPS: Final = re.compile(r"Skipping registration with Kubelet")
_NO_SOCKET: Final = re.compile(r"(/\S{0,300}kubelet\.sock)\S*:[^\n]{0,200}no such file or directory", re.IGNORECASE)
_NO_LIBRARY: Final = re.compile(
    r"ERROR_LIBRARY_NOT_FOUND|could not load NVML library|libnvidia-ml\.so[.\d]*: cannot open shared object",
    re.IGNORECASE,
)
_LOST: Final = re.compile(r"(?:unable to|failed to) retrieve container logs for ")
_KLOG: Final = re.compile(r"[IWEF]\d{4} [\d:.]{8,15} +\d+ [^\]\s]{1,80}\] ?")
_DATED: Final = re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ")
_FATAL: Final = re.compile(r"error starting plugins|panic:|fatal|unable to (?:load|parse|create)", re.IGNORECASE)
_COMPLAINT: Final = re.compile(
    r"^(?:[EF]\d{4} )|\b(?:error|failed|fatal|panic|could not|cannot|unable)\b", re.IGNORECASE
)
_HINT: Final = re.compile(r"If this is (?:not )?a GPU node|You can (?:check|learn)|Failed to start one or more plugins")
_MAX_LINE: Final = 4_000
_SHOWN: Final = 360

_HOST_SERVICE: Final = re.compile(r"Bottlerocket|EKS Auto|Amazon Linux.*Auto", re.IGNORECASE)
"""Node images in which the plugin is a service of the host. Source: upstream-facts §5."""
_ONE_DEVICE: Final = {"wsl", "tegra"}
"""Platforms on which the plugin offers one device whatever the number of GPUs (0.19.1; upstream-facts §1.3)."""
_GKE_CLIENTS: Final = "cloud.google.com/gke-max-shared-clients-per-gpu"
GKE_PARTITION: Final = "cloud.google.com/gke-gpu-partition-size"
"""Labels by which GKE's own plugin is told how to share or partition. Source: GKE, "GPU sharing strategies"."""
OPT_OUTS: Final = {
    "nvidia.com/gpu.deploy.device-plugin": {"false"},
    "nvidia.com/gpu.deploy.operands": {"false"},
    "nvidia.com/gpu.workload.config": {"vm-passthrough", "vm-vgpu"},
}
"""Labels by which a person keeps the device plugin off a node on purpose. Source: upstream-facts §8."""


def brief(text: str, limit: int = _SHOWN) -> str:
    """Return a text in one line; of a long one head and end, where a chain of errors names its origin."""
    line = " ".join(text.split())
    head = limit // 3
    return line if len(line) <= limit else f"{line[:head]} ... {line[len(line) - limit + head + 5 :]}"


class Unhealthy(msgspec.Struct, frozen=True):
    """A device that the plugin took out of service, with the XID that made it do so (None: another reason)."""

    device: str
    xid: int | None = None


class PluginLog(msgspec.Struct, frozen=True):
    """What a plugin's log proves, since the last start that stands in it.

    `has_start`: a start stands in it; without one the head is cut off and absence proves nothing. `registered`:
    resources registered with the kubelet and still served. `waits`: it found no device and waits for ever.
    `platform`: nvml, wsl, tegra or unknown, None if it does not say. `config`: what it prints that it runs with, None
    if it prints none. `socket`: the kubelet's socket that it did not find. `no_library`: it could not load NVML's
    library. `problem`: its own last word on what went wrong, None if it complains of nothing.
    """

    has_start: bool
    registered: tuple[str, ...] = ()
    waits: bool = False
    platform: str | None = None
    config: Reading[PluginConfig | None] = Seen(None)
    unhealthy: tuple[Unhealthy, ...] = ()
    socket: str | None = None
    no_library: bool = False
    problem: str | None = None


def complaint(text: str) -> str | None:
    """Return a log's own last word on what went wrong, None if it complains of nothing.

    The last line that ends a program, else the last that complains; without its time stamp, cut to a line.
    """
    last = None
    for line in text.splitlines():
        short = line[:_MAX_LINE]
        if _HINT.search(short) or not _COMPLAINT.search(short):
            continue
        if last is None or _FATAL.search(short) or not _FATAL.search(last):
            last = short
    return None if last is None else brief(_DATED.sub("", _KLOG.sub("", last, count=1), count=1))


def parse_log(text: str, source: str) -> Reading[PluginLog]:
    """Return what a plugin's log proves; missing where the text says that there is no log to be had."""
    head = text[:_MAX_LINE].lstrip()
    if _LOST.match(head):
        return Missing(MissingKind.ERROR, brief(head), source)
    lines = text.splitlines(keepends=True)
    start = 0
    has_start = False
    place = 0
    for line in lines:
        if _START.search(line[:_MAX_LINE].rstrip()):
            start, has_start = place, True
        place += len(line)
    return Seen(_since(text[start:], source, has_start=has_start))


def _since(text: str, source: str, *, has_start: bool) -> PluginLog:
    registered: dict[str, None] = {}
    xids: dict[str, int | None] = {}
    waits = no_library = False
    platform = socket = None
    for raw in text.splitlines():
        line = raw[:_MAX_LINE]
        if found := _REGISTERED.search(line):
            registered[found[1] or DEFAULT_RESOURCE] = None
        elif _PROVIDER_REGISTERED.search(line):
            registered[DEFAULT_RESOURCE] = None
        elif found := _STOPPED.search(line):
            registered.pop(found[1], None)
        elif found := _PLATFORM.search(line):
            platform = found[1].lower()
        elif found := _LEGACY_PLATFORM.search(line):
            platform = (platform or found[2].lower()) if not found[1] else platform
        elif found := _XID.search(line):
            xids[found[2]] = int(found[1])
        elif found := _UNHEALTHY.search(line):
            xids.setdefault(found[2], None)
        elif (found := _TOO_OLD.search(line)) and "unhealthy" in line:
            xids.setdefault(found[1], None)
        waits = waits or _WAITS.search(line) is not None
        no_library = no_library or _NO_LIBRARY.search(line) is not None
        found = _NO_SOCKET.search(line)
        socket = found[1] if found else socket
    return PluginLog(
        has_start=has_start,
        registered=tuple(registered),
        waits=waits and not registered,
        platform=platform,
        config=_printed(text, source),
        unhealthy=tuple(Unhealthy(device, xid) for device, xid in xids.items()),
        socket=socket,
        no_library=no_library,
        problem=complaint(text),
    )


def _printed(text: str, source: str) -> Reading[PluginConfig | None]:
    ends = [found.end() for found in _CONFIG.finditer(text)]
    if not ends:
        return Seen(None)
    try:
        return Seen(parse_printed(text, ends[-1]))
    except ConfigError as error:
        return Missing(MissingKind.UNPARSABLE, f"{source}: {error}", source)


class Serving(msgspec.Struct, frozen=True):
    """Which resources the device plugins of a node serve now, and what proves it; else why none is served."""

    resources: tuple[str, ...]
    proof: str
    problem: str | None = None


class Offer(msgspec.Struct, frozen=True):
    """The GPU resources that a node offers, those with a capacity of 0 left out."""

    capacity: dict[str, int]
    allocatable: dict[str, int]

    @property
    def short(self) -> dict[str, int]:
        """How many of each resource are in capacity and not in allocatable, where that is any."""
        return {
            name: count - self.allocatable[name]
            for name, count in self.capacity.items()
            if self.allocatable[name] != count
        }

    @property
    def is_even(self) -> bool:
        """Whether allocatable equals capacity throughout."""
        return not self.short

    def __str__(self) -> str:
        """Return it in a reader's words."""
        parts = (
            f"{name}: capacity {count}, allocatable {self.allocatable[name]}"
            for name, count in sorted(self.capacity.items())
        )
        return "; ".join(parts) or "no GPU resource in its capacity"


class Requested(msgspec.Struct, frozen=True):
    """The configuration that a node's plugin is given. `config_map` as namespace/name.

    `entry`: the key that applies, None for the empty configuration or where none was found. `chosen_by`: what chose it.
    `problem`: why it cannot be used, None if it can; then `config` says what it asks for. `is_given`: the plugin reads
    a configuration at all; else the node asks by label for what the plugin has nothing to choose from.
    """

    config_map: str
    entry: str | None = None
    chosen_by: str = ""
    problem: str | None = None
    config: PluginConfig = PluginConfig()
    is_given: bool = True


class DevicePlugin:
    """The device plugin on one node."""

    def __init__(self, node: "Node") -> None:
        """Keep the node."""
        self.node = node
        self._logs: dict[Pod, Reading[PluginLog]] = {}

    @derived
    def pods(self) -> "tuple[Pod, ...]":
        """The plugin's pods on this node, NVIDIA's or the provider's; none that has ended or is being deleted."""
        kinds = (Component.DEVICE_PLUGIN, Component.PROVIDER_DEVICE_PLUGIN)
        return tuple(
            pod
            for pod in need(self.node.pods)
            if need(pod.component) in kinds and not need(pod.is_finished) and not need(pod.is_leaving)
        )

    @property
    def is_provider(self) -> Reading[bool]:
        """Whether only the provider's own plugin runs here, whose configuration is not NVIDIA's."""
        return attempt(
            lambda: (
                bool(need(self.pods))
                and all(need(pod.component) is Component.PROVIDER_DEVICE_PLUGIN for pod in need(self.pods))
            )
        )

    def log(self, pod: "Pod") -> Reading[PluginLog]:
        """Return what the log of a plugin's pod proves."""
        if pod not in self._logs:
            self._logs[pod] = attempt(lambda: _parsed(pod))
        return self._logs[pod]

    @derived
    def logs(self) -> "tuple[tuple[Pod, PluginLog], ...]":
        """The plugin's pods whose container runs, with what their logs prove."""
        return tuple((pod, need(self.log(pod))) for pod in need(self.pods) if need(is_running(pod)))

    @derived
    def serving(self) -> Serving:
        """Which resources are served now.

        From the log of each running plugin; where a log has no start in it (rotated) or was not asked for, from
        allocatable: the kubelet zeroes it when a plugin's endpoint ends, while its checkpoint keeps dead devices
        (seen in recordings), and a socket of the plugin proves no registration.
        """
        pods = need(self.pods)
        if not pods:
            status = need(self.node.object).status
            if _HOST_SERVICE.search(status.node_info.os_image):
                offered = tuple(name for name, count in need(self.node.allocatable).items() if count)
                return Serving(
                    offered,
                    "a service of the node's image",
                    None if offered else "the node image's service offers nothing",
                )
            return Serving((), "", "no device-plugin pod is on the node")
        found: dict[str, None] = {}
        proof = problem = ""
        for pod in pods:
            name = f"{pod.namespace}/{pod.name}"
            if not need(is_running(pod)):
                problem = f"the container of {name} does not run ({need(state_of(pod))})"
                continue
            one = self._one(pod)
            found.update(dict.fromkeys(one.resources))
            proof, problem = one.proof or proof, one.problem or problem
        return Serving(tuple(found), proof, None if found else problem)

    def _one(self, pod: "Pod") -> Serving:
        reading = self.log(pod)
        name = f"{pod.namespace}/{pod.name}"
        if isinstance(reading, Missing) and reading.kind is not MissingKind.NOT_ASKED:
            need(reading)
        if isinstance(reading, Seen):
            log = reading.value
            if log.registered:
                return Serving(log.registered, "its log")
            if log.has_start or log.waits:
                why = log.problem or ("it found no device and waits" if log.waits else "it has not come so far")
                hidden = hides_all(need(pod.object).spec)
                why += f"; {hidden}" if hidden else ""
                return Serving((), "", f"the log of {name} has a start and no registration after it: {why}")
        offered = tuple(
            resource for resource, count in nvidia_resources(need(self.node.object).status.allocatable).items() if count
        )
        return Serving(
            offered,
            "allocatable",
            None if offered else f"neither the log of {name} nor allocatable shows a registration",
        )

    @derived
    def offer(self) -> Offer:
        """The GPU resources in capacity and allocatable. Source: status.capacity, status.allocatable."""
        allocatable = need(self.node.allocatable)
        capacity = {name: count for name, count in need(self.node.capacity).items() if count}
        return Offer(capacity, {name: allocatable.get(name, 0) for name in capacity})

    @derived
    def is_dra_only(self) -> bool:
        """Whether the DRA driver serves this node and no device plugin does."""
        if need(self.pods):
            return False
        slices = self.node.cluster.objects("resourceslices.resource.k8s.io")
        if isinstance(slices, Missing) and slices.kind is MissingKind.NOT_ASKED:
            return bool(need(self.node.cluster.stack.dra_plugins)) and not need(self.node.cluster.stack.device_plugins)
        return any(one.spec.driver == "gpu.nvidia.com" and one.spec.node_name == self.node.name for one in need(slices))

    @derived
    def is_partitioned(self) -> bool:
        """Whether GKE's plugin was told to cut this node's GPUs into partitions."""
        return GKE_PARTITION in need(self.node.labels)

    @derived
    def contested(self) -> dict[str, tuple[str, ...]]:
        """Resources that plugins of more than one owner serve or mean to serve on this node, with their pods."""
        claims: dict[str, dict[str, str]] = {}
        for pod in need(self.pods):
            owner = next((one.uid for one in need(pod.object).metadata.owner_references if one.controller), pod.name)
            for resource in self._claimed(pod):
                claims.setdefault(resource, {}).setdefault(owner, f"{pod.namespace}/{pod.name}")
        return {resource: tuple(owners.values()) for resource, owners in claims.items() if len(owners) > 1}

    def _claimed(self, pod: "Pod") -> tuple[str, ...]:
        if need(is_running(pod)):
            log = self.log(pod)
            if isinstance(log, Missing) and log.kind is not MissingKind.NOT_ASKED:
                need(log)
            if isinstance(log, Seen) and log.value.registered:
                return log.value.registered
        return (DEFAULT_RESOURCE,)

    @derived
    def unhealthy_words(self) -> str:
        """What the plugin's log says of devices that it took out of service, empty if it says nothing."""
        devices = [one for _, log in need(self.logs) for one in log.unhealthy]
        return "; ".join(
            f"its log: XID {one.xid} on {one.device}"
            if one.xid is not None
            else f"its log: {one.device} marked unhealthy"
            for one in devices
        )

    @derived
    def sharing_words(self) -> str:
        """The effective configuration of sharing and MIG, in a reader's words."""
        if need(self.is_provider):
            return "the provider's plugin"
        config = need(self.config)
        return f"{config.sharing}, MIG strategy {config.mig_strategy or 'none'}"

    @derived
    def config(self) -> PluginConfig:
        """The effective configuration: what the plugin prints that it runs with.

        Where its log was not asked for or does not reach back so far: its arguments, environment, and the
        configuration that it is given.
        """
        for pod in need(self.pods):
            if not need(is_running(pod)):
                continue
            log = self.log(pod)
            if isinstance(log, Missing) and log.kind is not MissingKind.NOT_ASKED:
                need(log)
            printed = need(log.value.config) if isinstance(log, Seen) else None
            if printed is not None:
                return printed
        return need(self.declared)

    @derived
    def is_running(self) -> bool:
        """Whether the container of any of its pods runs."""
        return any(need(is_running(pod)) for pod in need(self.pods))

    @derived
    def printed(self) -> PluginConfig:
        """What the plugin's own log says that it runs with; missing where the log does not reach back to that."""
        for pod, log in need(self.logs):
            config = need(log.config)
            if config is not None:
                return config
            need(
                Missing(
                    MissingKind.ERROR,
                    f"the log of {pod.namespace}/{pod.name} does not show its configuration",
                    f"logs/{pod.namespace}/{pod.name}",
                )
            )
        need(Missing(MissingKind.ERROR, f"no device plugin runs on {self.node.name}", f"nodes/{self.node.name}"))
        return PluginConfig()

    @derived
    def declared(self) -> PluginConfig:
        """The configuration that the pod's specification implies: arguments, then environment, then the file."""
        pods = need(self.pods)
        if not pods:
            return PluginConfig()
        requested = need(self.requested)
        base = requested.config if requested and requested.problem is None else PluginConfig()
        container = main_container(need(pods[0].object).spec)
        strategy = setting(container, "--mig-strategy", "MIG_STRATEGY")
        return msgspec.structs.replace(base, mig_strategy=strategy) if strategy else base

    @derived
    def is_given_config(self) -> bool:
        """Whether the plugin is told to read a configuration file, or the node's label asks for one."""
        pods = need(self.pods)
        if any(source_of(need(pod.object).spec) is not None for pod in pods):
            return True
        return bool(pods) and CONFIG_LABEL in need(self.node.labels)

    @derived
    def requested(self) -> Requested | None:
        """The configuration that this node's plugin is given, None if it is given none."""
        for pod in need(self.pods):
            spec = need(pod.object).spec
            source = source_of(spec)
            if source is not None:
                return self._requested(pod.namespace, source)
        label = need(self.node.labels).get(CONFIG_LABEL)
        if label and need(self.pods):
            return Requested(
                "",
                problem=f"the node's label {CONFIG_LABEL} asks for '{label}', and the plugin is given no "
                "configuration to choose from",
                is_given=False,
            )
        return None

    @derived
    def unread(self) -> UnreadSharing | None:
        """A sharing configuration that no device plugin mounts, None if there is none or the plugin shares anyway.

        What could not be listed makes none: this can only add a fault to a plugin that is given no configuration.
        """
        if not need(self.pods) or need(self.is_provider):
            return None
        config = self.config
        if isinstance(config, Seen) and config.value.sharing.resources:
            return None
        unread = self.node.cluster.stack.unread_sharing
        return next(iter(unread.value), None) if isinstance(unread, Seen) else None

    def _requested(self, namespace: str, source: "Source") -> Requested:
        name = f"{namespace}/{source.config_map}"
        if not source.config_map:
            return Requested("", problem=f"the plugin reads '{source.path}', and no ConfigMap is mounted there")
        maps = need(self.node.cluster.objects("configmaps"))
        found = next(
            (one for one in maps if one.metadata.name == source.config_map and one.metadata.namespace == namespace),
            None,
        )
        if found is None:
            return Requested(name, problem=f"there is no ConfigMap {name}")
        return self._chosen(name, source, found)

    def _chosen(self, name: str, source: "Source", found: ConfigMapDocument) -> Requested:
        data = found.data or {}
        entry: str | None
        try:
            if source.manager:
                label = need(self.node.labels).get(source.label)
                entry, chosen_by = choose_entry(data, label=label, default=source.default, fallbacks=source.fallbacks)
            else:
                entry, chosen_by = (
                    source.entry if source.entry in data else _only(data, source),
                    "the file that it reads",
                )
        except ConfigError as error:
            return Requested(name, problem=f"ConfigMap {name}: {error}")
        if entry is None:
            return Requested(name, None, chosen_by)
        try:
            return Requested(name, entry, chosen_by, config=parse_config(data[entry]))
        except ConfigError as error:
            return Requested(name, entry, chosen_by, problem=f"entry '{entry}' of ConfigMap {name}: {error}")

    @derived
    def expected(self) -> dict[str, int]:
        """What the node should offer, by resource: its GPUs and MIG devices under the effective configuration.

        GPUs from the host (PCI bus and NVML); where the host was not asked, from GFD's labels. On WSL2 the plugin
        offers one device whatever the number of GPUs (since 0.19.1). Source: internal/rm/device_map.go.
        """
        if need(self.is_provider):
            clients = need(self.node.labels).get(_GKE_CLIENTS, "")
            return {DEFAULT_RESOURCE: len(need(self.node.gpus)) * (int(clients) if clients.isdigit() else 1)}
        config = need(self.config)
        if self._platform() in _ONE_DEVICE:
            return config.offered({config.one_name or DEFAULT_RESOURCE: 1})
        return config.offered(self._devices(config))

    def _platform(self) -> str | None:
        for pod in need(self.pods):
            if need(is_running(pod)):
                log = self.log(pod)
                if isinstance(log, Seen) and log.value.platform is not None:
                    return log.value.platform
        return None

    def _devices(self, config: PluginConfig) -> dict[str, int]:
        gpus = self.node.gpus
        if isinstance(gpus, Missing) and gpus.kind is MissingKind.NOT_ASKED:
            labelled = self._labelled(config)
            if labelled is not None:
                return labelled
        devices: dict[str, int] = {}
        for gpu in need(gpus):
            mig = self._mig_devices(gpu.identity) if config.mig_strategy in {"single", "mixed"} else None
            if mig is None:
                name = config.one_name or self._named(gpu.identity, config)
                devices[name] = devices.get(name, 0) + 1
                continue
            for profile in mig:
                name = (
                    _MIG_RESOURCE.format(profile.replace("+", "."))
                    if config.mig_strategy == "mixed"
                    else DEFAULT_RESOURCE
                )
                devices[name] = devices.get(name, 0) + 1
        return devices

    def _named(self, gpu: GpuIdentity, config: PluginConfig) -> str:
        answer = need(self.node.driver.query(gpu, "nvmlDeviceGetName"))
        return config.resource_of(str(answer.value)) or DEFAULT_RESOURCE

    def _mig_devices(self, gpu: GpuIdentity) -> tuple[str, ...] | None:
        """Return the profiles of a GPU's MIG devices, None where MIG is off or not supported."""
        mode = need(self.node.driver.mig_mode(gpu))
        if mode is None or not mode[0]:
            return None
        listed = need(self.node.host.command("nvidia-smi -L"))
        return () if listed is None or gpu.index is None else parse_mig(listed.text).get(gpu.index, ())

    def _labelled(self, config: PluginConfig) -> dict[str, int] | None:
        """Return the devices that GFD's labels count, by unshared resource, None if there are no such labels."""
        labels = need(self.node.labels)
        count = labels.get("nvidia.com/gpu.count", "")
        if not count.isdigit():
            return None
        mig = {
            match[1]: int(value)
            for key, value in labels.items()
            if key.endswith(".count") and (match := _MIG_COUNT.fullmatch(key)) and value.isdigit()
        }
        whole = (
            {}
            if config.mig_strategy == "mixed" and labels.get("nvidia.com/gpu.replicas") == "0"
            else {config.one_name or DEFAULT_RESOURCE: int(count)}
        )
        return {**whole, **mig} if config.mig_strategy == "mixed" else whole


_MIG_RESOURCE: Final = "nvidia.com/mig-{}"
_MIG_COUNT: Final = re.compile(r"(nvidia\.com/mig-[0-9a-z.]+)\.count")
_SMI_GPU: Final = re.compile(r"GPU (\d+):")
_SMI_MIG: Final = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+:")


def parse_mig(text: str) -> dict[int, tuple[str, ...]]:
    """Return the profiles of the MIG devices that `nvidia-smi -L` lists, by GPU index."""
    found: dict[int, list[str]] = {}
    index = None
    for line in text.splitlines():
        if gpu := _SMI_GPU.match(line):
            index = int(gpu[1])
        elif index is not None and (mig := _SMI_MIG.match(line[:_MAX_LINE])):
            found.setdefault(index, []).append(mig[1])
    return {gpu: tuple(profiles) for gpu, profiles in found.items()}


class Source(msgspec.Struct, frozen=True):
    """Where a plugin's configuration comes from, as its pod's specification says.

    `manager`: config-manager chooses the entry by node label, default and fallbacks; else `entry` is the file's name.
    """

    config_map: str
    path: str
    manager: bool = False
    label: str = CONFIG_LABEL
    default: str | None = None
    fallbacks: tuple[str, ...] = ()
    entry: str = ""


def source_of(spec: PodSpec) -> Source | None:
    """Return where the plugin's configuration comes from, None if the plugin is told of no file.

    Source: chart 0.12 to 0.20 (config-manager as init container and sidecar), the operator's DaemonSet, static files.
    """
    for container in (*spec.containers, *(spec.init_containers or ())):
        folder = setting(container, "--config-file-srcdir", "CONFIG_FILE_SRCDIR")
        if folder and (_runs_manager(container) or setting(container, "", "NODE_LABEL")):
            return Source(
                config_map=_mounted(spec, container, folder) or "",
                path=folder,
                manager=True,
                label=setting(container, "--node-label", "NODE_LABEL") or CONFIG_LABEL,
                default=setting(container, "--default-config", "DEFAULT_CONFIG") or None,
                fallbacks=tuple(
                    one.strip()
                    for one in (setting(container, "--fallback-strategies", "FALLBACK_STRATEGIES") or "").split(",")
                    if one.strip()
                ),
            )
    container = main_container(spec)
    path = setting(container, "--config-file", "CONFIG_FILE")
    if not path:
        return None
    return Source(config_map=_mounted(spec, container, path) or "", path=path, entry=posixpath.basename(path))


def _runs_manager(container: Container) -> bool:
    words = (*(container.command or ()), *(container.args or ()))
    return any("config-manager" in word for word in words) or "config-manager" in container.name


def _mounted(spec: PodSpec, container: Container, path: str) -> str | None:
    maps = {one.name: one.config_map.name for one in spec.volumes or () if one.config_map is not None}
    for mount in container.volume_mounts or ():
        below = path == mount.mount_path or path.startswith(mount.mount_path.rstrip("/") + "/")
        if below and mount.name in maps:
            return maps[mount.name]
    return None


def _only(data: Mapping[str, str], source: Source) -> str:
    if len(data) != 1:
        entries = ", ".join(f"'{name}'" for name in sorted(data))
        raise ConfigError(f"no entry '{source.entry}' for '{source.path}'; its entries are {entries or 'none'}")
    return next(iter(data))


def setting(container: Container, flag: str, variable: str) -> str | None:
    """Return a setting's literal value: the flag's where it is given, else the variable's, else None."""
    words = [*(container.command or ()), *(container.args or ())]
    for place, word in enumerate(words):
        if flag and word.startswith(f"{flag}="):
            return word.partition("=")[2]
        if flag and word == flag and place + 1 < len(words):
            return words[place + 1]
    return next((one.value for one in container.env or () if one.name == variable), None)


def main_container(spec: PodSpec) -> Container:
    """Return the container that does the pod's work in the GPU stack (no sidecar), else the first."""
    component = recognise(spec)
    mine = [one for one in spec.containers if component is not None and component.is_main(one)]
    return (mine or list(spec.containers))[0]


def hides_all(spec: PodSpec) -> str | None:
    """Return what tells the pod's main container to see no GPU, in a reader's words, None if nothing does.

    Source: NVIDIA Container Toolkit, "Environment variables": `void`, `none` and an empty value give no device.
    """
    for variable in main_container(spec).env or ():
        if (
            variable.name == "NVIDIA_VISIBLE_DEVICES"
            and variable.value_from is None
            and (variable.value or "") in {"", "none", "void"}
        ):
            return f"its specification sets NVIDIA_VISIBLE_DEVICES='{variable.value or ''}'"
    return None


def _parsed(pod: "Pod") -> PluginLog:
    container = main_container(need(pod.object).spec)
    source = f"cluster/logs/{pod.namespace}_{pod.name}_{container.name}.log"
    return need(parse_log(need(pod.log(container.name)), source))


def is_running(pod: "Pod") -> Reading[bool]:
    """Return whether the pod's main container runs now."""

    def derive() -> bool:
        document = need(pod.object)
        name = main_container(document.spec).name
        return any(
            one.name == name and one.state.running is not None for one in document.status.container_statuses or ()
        )

    return attempt(derive)


def state_of(pod: "Pod") -> Reading[str]:
    """Return in a word or two how the pod's main container fares."""

    def derive() -> str:
        document = need(pod.object)
        name = main_container(document.spec).name
        for one in document.status.container_statuses or ():
            if one.name == name:
                if one.state.running is not None:
                    return "running" if one.ready else "running, not ready"
                if one.state.terminated is not None:
                    return f"terminated, exit code {one.state.terminated.exit_code}"
                return one.state.waiting.reason if one.state.waiting and one.state.waiting.reason else "waiting"
        return document.status.phase

    return attempt(derive)


def troubles(pod: "Pod") -> Reading[tuple[str, ...]]:
    """Return what keeps a pod from being Ready, in the words of statuses, logs and events; each fact once.

    A log or the events that cannot be had only shorten the explanation: the statuses have already said that
    the pod is not well.
    """

    def derive() -> tuple[str, ...]:
        document = need(pod.object)
        facts: list[str] = []
        if document.status.reason:
            facts.append(brief(f"{document.status.reason}: {document.status.message}".rstrip(": ")))
        hidden = hides_all(document.spec)
        if hidden is not None:
            facts.append(hidden)
        silent = not document.status.container_statuses
        for one in document.status.init_container_statuses or ():
            if one.state.running is not None and not one.ready:
                words = _last_words(pod, one.name)
                facts.append(f"init container {one.name} has not ended{f': {words}' if words else ''}")
        for one in need(pod.statuses):
            ended = one.state.terminated or one.last_state.terminated
            waiting = one.state.waiting
            if waiting is not None and waiting.reason not in {"", "PodInitializing"}:
                facts.append(
                    brief(f"{one.name} waits: {waiting.reason}{': ' + waiting.message if waiting.message else ''}")
                )
                silent = silent or not waiting.message
            if ended is not None and (ended.exit_code or not one.ready):
                facts.append(
                    f"{one.name} ended with exit code {ended.exit_code} ({ended.reason or 'no reason'}), "
                    f"{one.restart_count} restarts"
                )
                words = _last_words(pod, one.name)
                if words:
                    facts.append(f"its log: {words}")
        if silent:
            facts.extend(_warnings(pod))
        return tuple(dict.fromkeys(facts))

    return attempt(derive)


def _last_words(pod: "Pod", container: str) -> str | None:
    for previous in (False, True):
        log = pod.log(container, previous=previous)
        if isinstance(log, Seen) and not _LOST.match(log.value.lstrip()):
            words = complaint(log.value)
            if words is not None:
                return words
    return None


def _warnings(pod: "Pod") -> list[str]:
    events = pod.events
    if isinstance(events, Missing):
        return []
    spoken = [
        event
        for event in events.value
        if event.type == "Warning" and event.reason not in {"BackOff", "FailedScheduling"}
    ]
    return [brief(f"{spoken[-1].reason}: {spoken[-1].message}")] if spoken else []


class Uncovered(msgspec.Struct, frozen=True):
    """A GPU node on which a device-plugin DaemonSet wants no pod, with the rule that excludes it, in words and keys."""

    node: str
    reason: str
    rule: str
    keys: tuple[str, ...]

    @property
    def is_condition(self) -> bool:
        """Whether a condition of the node excludes it, that passes when the node is well again."""
        return self.rule == "taint" and all(key.startswith("node.kubernetes.io/") for key in self.keys)


def is_device_plugin(daemonset: "DaemonSet") -> Reading[bool]:
    """Return whether a DaemonSet is a device plugin, NVIDIA's or the provider's."""
    return Seen(daemonset.component in {Component.DEVICE_PLUGIN, Component.PROVIDER_DEVICE_PLUGIN})


def uncovered(daemonset: "DaemonSet") -> Reading[tuple[Uncovered, ...]]:
    """Return the GPU nodes that neither this DaemonSet nor another device plugin wants a pod on.

    Left out: nodes that a person keeps it off by label, and nodes that DRA serves.
    """

    def derive() -> tuple[Uncovered, ...]:
        cluster = daemonset.cluster
        others = [one for one in need(cluster.stack.device_plugins) if one is not daemonset]
        found = []
        for node in need(cluster.gpu_nodes):
            mine = need(daemonset.rejection(node))
            if mine is None or any(need(one.rejection(node)) is None for one in others) or _is_left_out(node):
                continue
            found.append(Uncovered(node.name, str(mine), mine.rule, mine.keys))
        return tuple(found)

    return attempt(derive)


def _is_left_out(node: "Node") -> bool:
    labels = need(node.labels)
    if any(labels.get(key) in values for key, values in OPT_OUTS.items()):
        return True
    slices = node.cluster.objects("resourceslices.resource.k8s.io")
    if isinstance(slices, Missing) and slices.kind is MissingKind.NOT_ASKED:
        return False
    return any(one.spec.driver == "gpu.nvidia.com" and one.spec.node_name == node.name for one in need(slices))


def covered_count(daemonset: "DaemonSet") -> Reading[int]:
    """Return on how many GPU nodes the DaemonSet's pods may run."""

    def derive() -> int:
        return sum(need(daemonset.rejection(node)) is None for node in need(daemonset.cluster.gpu_nodes))

    return attempt(derive)


def servers(cluster: "Cluster") -> Reading[tuple[str, ...]]:
    """Return what serves GPUs in a cluster, the first kind that is found; empty if nothing does.

    In order: device-plugin DaemonSets, DRA plugins, device plugins in pods of another kind, services of node images,
    and DaemonSets of an unknown make that reach the kubelet's plugin folder on nodes that offer GPUs.
    """

    def derive() -> tuple[str, ...]:
        stack = (*need(cluster.stack.device_plugins), *need(cluster.stack.dra_plugins))
        if stack:
            return tuple(f"DaemonSet {one.namespace}/{one.name}" for one in stack)
        kinds = {Component.DEVICE_PLUGIN, Component.PROVIDER_DEVICE_PLUGIN, Component.DRA_KUBELET_PLUGIN}
        pods = [
            pod for pod in need(cluster.readable_pods) if need(pod.component) in kinds and not need(pod.is_finished)
        ]
        if pods:
            return tuple(f"pod {one.namespace}/{one.name}" for one in pods)
        offering = [
            node
            for node in need(cluster.nodes)
            if isinstance(node.object, Seen) and any(need(node.allocatable).values())
        ]
        images = [node for node in offering if _HOST_SERVICE.search(need(node.object).status.node_info.os_image)]
        if images:
            return tuple(f"a service of the image of {node.name}" for node in images)
        daemonsets = need(cluster.daemonsets)
        unknown = [
            one
            for one in daemonsets
            if offering
            and any(path.endswith(PLUGIN_FOLDER) for path in kubelet_paths(need(one.object).spec.template.spec))
        ]
        for daemonset in daemonsets:
            need(daemonset.object)  # a malformed one might be what serves
        for pod in need(cluster.pods):
            need(pod.outline)
        return tuple(f"DaemonSet {one.namespace}/{one.name}" for one in unknown)

    return attempt(derive)


class WrongPath(msgspec.Struct, frozen=True):
    """A hostPath that does not lead to the kubelet, and what was found instead."""

    path: str
    found: str


def wanted_nodes(daemonset: "DaemonSet") -> "Reading[tuple[Node, ...]]":
    """Return the nodes on which a DaemonSet has pods, in order of name."""

    def derive() -> "tuple[Node, ...]":
        places = {pod.node_name for pod in need(live_pods(daemonset)) if pod.node_name is not None}
        nodes = need(daemonset.cluster.nodes_by_name) if places else {}
        return tuple(nodes[name] for name in sorted(places) if name in nodes)

    return attempt(derive)


def misplaced(daemonset: "DaemonSet", node: "Node") -> Reading[WrongPath | None]:
    """Return which hostPath of a DaemonSet does not lie under the kubelet's root on a node, None if all do.

    The root is where `kubelet.sock` was listed; where no folder was listed, the device plugin's log decides: it
    registered through its own hostPath, or did not find the socket there.
    """

    def derive() -> WrongPath | None:
        paths = kubelet_paths(need(daemonset.object).spec.template.spec)
        root = node.kubelet.root
        if isinstance(root, Missing) and root.kind is MissingKind.NOT_ASKED:
            return _by_log(node, paths, root)
        known = need(root)
        for path in paths:
            implied = kubelet_root_of(path)
            if known is not None and implied != known:
                return WrongPath(path, f"kubelet.sock is in {known}/{PLUGIN_FOLDER}")
            if known is None:
                looked = [folder for folder in node.kubelet.folders if folder == f"{implied}/{PLUGIN_FOLDER}"]
                if looked:
                    return WrongPath(path, f"{looked[0]} holds no kubelet.sock")
                need(
                    Missing(
                        MissingKind.ERROR,
                        f"no folder that was listed on {node.name} holds kubelet.sock",
                        f"nodes/{node.name}/host.json",
                    )
                )
        return None

    return attempt(derive)


def _by_log(node: "Node", paths: tuple[str, ...], unlisted: Missing) -> WrongPath | None:
    for pod in need(node.plugin.pods):
        if not need(is_running(pod)):
            continue
        log = need(node.plugin.log(pod))
        for path in kubelet_paths(need(pod.object).spec):
            mine = [one for one in paths if kubelet_root_of(one) != kubelet_root_of(path)]
            if log.registered:
                return WrongPath(mine[0], f"the device plugin registered through {path}") if mine else None
            if log.socket and len(mine) < len(paths):
                return WrongPath(path, f"the device plugin's log says that {log.socket} is not there")
    need(unlisted)
    return None


def live_pods(daemonset: "DaemonSet") -> "Reading[tuple[Pod, ...]]":
    """Return a DaemonSet's pods that have not ended and are not being deleted."""
    return attempt(
        lambda: tuple(pod for pod in need(daemonset.pods) if not need(pod.is_finished) and not need(pod.is_leaving))
    )


def recent_restarts(pod: "Pod", within_s: float) -> Reading[int]:
    """Return how often the pod's containers have restarted, 0 if the last end lies further back than `within_s`."""

    def derive() -> int:
        total = 0
        for status in need(pod.statuses) if need(pod.restarts) else ():
            ended = status.last_state.terminated
            if (
                ended is not None
                and ended.finished_at is not None
                and (pod.cluster.gathered_at - ended.finished_at).total_seconds() <= within_s
            ):
                total += status.restart_count
        return total

    return attempt(derive)


_PULL: Final = re.compile(
    r"ErrImagePull|ImagePullBackOff|InvalidImageName|ErrImageNeverPull|ImageInspectError|RegistryUnavailable"
)


def unpulled(pod: "Pod") -> Reading[str | None]:
    """Return which image of a pod cannot be pulled and why, None if none waits for its image."""

    def derive() -> str | None:
        for status in () if need(pod.outline).is_even else need(pod.statuses):
            waiting = status.state.waiting
            if waiting is not None and _PULL.fullmatch(waiting.reason):
                why = waiting.message
                if not why or waiting.reason == "ImagePullBackOff":
                    why = _pull_event(pod) or why
                return brief(f"{status.name} waits: {waiting.reason}, image {status.image}: {why}")
        return None

    return attempt(derive)


def _pull_event(pod: "Pod") -> str | None:
    events = pod.events
    if isinstance(events, Missing):
        return None
    return next((one.message for one in reversed(events.value) if one.message.startswith("Failed to pull image")), None)


def refused_creation(daemonset: "DaemonSet") -> Reading[str | None]:
    """Return the last event by which the creation of a DaemonSet's pods was refused, None if there is none."""

    def derive() -> str | None:
        refused = [event.message for event in need(daemonset.events) if event.reason == "FailedCreate"]
        return brief(refused[-1]) if refused else None

    return attempt(derive)


def kubelet_paths(spec: PodSpec) -> tuple[str, ...]:
    """Return the hostPaths by which a pod reaches the kubelet: its plugin, pod-resources and DRA folders."""
    names = {PLUGIN_FOLDER, "pod-resources", "plugins", "plugins_registry"}
    found = []
    for volume in spec.volumes or ():
        if volume.host_path is not None:
            path = volume.host_path.path.rstrip("/")
            parts = path.split("/")
            if names & set(parts) and ("kubelet" in path or parts[-1] in {PLUGIN_FOLDER, "pod-resources"}):
                found.append(path)
    return tuple(found)


def kubelet_root_of(path: str) -> str:
    """Return the kubelet's root that a hostPath of a plugin implies: what stands above the folder that it names."""
    parts = path.rstrip("/").split("/")
    for place, part in enumerate(parts):
        if part in {PLUGIN_FOLDER, "pod-resources", "plugins", "plugins_registry"}:
            return "/".join(parts[:place])
    return path


def reads_kubelet(daemonset: "DaemonSet") -> Reading[bool]:
    """Return whether a DaemonSet reaches the kubelet by a hostPath."""
    return attempt(lambda: bool(kubelet_paths(need(daemonset.object).spec.template.spec)))
