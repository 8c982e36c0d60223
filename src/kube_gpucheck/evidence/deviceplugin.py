"""The device plugin on one node: its pods, its effective configuration, what it should offer.

Sources: k8s-device-plugin 0.7 to 0.20 (flags), GKE's container-engine-accelerators, the kubelet's device
manager (capacity stays and allocatable becomes 0 when a plugin's endpoint ends).
"""

import re
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.allocation import nvidia_resources
from kube_gpucheck.evidence.coverage import HOST_SERVICE
from kube_gpucheck.evidence.documents import ConfigMapDocument
from kube_gpucheck.evidence.dra import GPU_DRIVER
from kube_gpucheck.evidence.gpu import GpuIdentity
from kube_gpucheck.evidence.pluginlog import PluginLog, parse_log
from kube_gpucheck.evidence.podspec import Source, hides_all, main_container, only_entry, setting, source_of
from kube_gpucheck.evidence.podstate import is_running, live_pods_on, state_of
from kube_gpucheck.evidence.readings import attempt, derived, need
from kube_gpucheck.evidence.sharing import (
    CONFIG_LABEL,
    DEFAULT_RESOURCE,
    ConfigError,
    PluginConfig,
    choose_entry,
    parse_config,
)
from kube_gpucheck.evidence.stack import Component, UnreadSharing, component_of
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.node import Node
    from kube_gpucheck.evidence.pod import Pod

_ONE_DEVICE: Final = {"wsl", "tegra"}
"""Platforms on which the plugin offers one device whatever the number of GPUs (0.19.1; upstream-facts §1.3)."""

_GKE_CLIENTS: Final = "cloud.google.com/gke-max-shared-clients-per-gpu"

GKE_PARTITION: Final = "cloud.google.com/gke-gpu-partition-size"
"""Labels by which GKE's own plugin is told how to share or partition. Source: GKE, "GPU sharing strategies"."""


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

    @derived
    def pods(self) -> "tuple[Pod, ...]":
        """The plugin's pods on this node, NVIDIA's or the provider's; none that has ended or is being deleted.

        Missing where a plugin's pod, of whatever node, is malformed.
        """
        kinds = (Component.DEVICE_PLUGIN, Component.PROVIDER_DEVICE_PLUGIN)
        for pod in need(self.node.cluster.malformed_pods):
            if any(one.component in kinds and one.names(pod) for one in need(self.node.cluster.daemonsets)):
                need(pod.outline)
        return live_pods_on(self.node, *kinds)

    @property
    def is_provider(self) -> Reading[bool]:
        """Whether only the provider's own plugin runs here, whose configuration is not NVIDIA's."""
        return attempt(
            lambda: (
                bool(need(self.pods))
                and all(need(pod.component) is Component.PROVIDER_DEVICE_PLUGIN for pod in need(self.pods))
            )
        )

    @derived
    def others(self) -> "tuple[Pod, ...]":
        """The pods on this node that are device plugins of another make, and have neither ended nor are leaving."""
        return live_pods_on(self.node, Component.OTHER_DEVICE_PLUGIN)

    @derived
    def other(self) -> str | None:
        """What serves GPUs here by rules that are not NVIDIA's plugin's, in a reader's words; None if nothing does.

        A device plugin of another make; or, where no device plugin is installed at all, whatever makes the kubelet
        offer GPUs, for it takes them from allocatable when whoever served them has gone.
        """
        if need(self.pods):
            return None
        if need(self.is_host_service):
            return None
        for pod in need(self.others):
            return f"{pod.namespace}/{pod.name}, a device plugin of another make,"
        if not any(need(self.node.allocatable).values()) or need(self.node.cluster.stack.device_plugins):
            return None
        return "something that is no pod of the node"

    @derived
    def is_host_service(self) -> bool:
        """Whether the node's image is known to serve GPUs by a service of its own."""
        return HOST_SERVICE.search(need(self.node.object).status.node_info.os_image) is not None

    def log(self, pod: "Pod") -> Reading[PluginLog]:
        """Return what the log of a plugin's pod proves."""
        known = self.node.cluster.plugin_logs
        if pod not in known:
            known[pod] = attempt(lambda: _parsed(pod))
        return known[pod]

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
            offered = tuple(name for name, count in need(self.node.allocatable).items() if count)
            if need(self.is_host_service):
                return Serving(
                    offered,
                    "a service of the node's image",
                    None if offered else "the node image's service offers nothing",
                )
            if need(self.other) is not None and offered:
                return Serving(offered, "allocatable")
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
        """Whether the DRA driver serves this node, or is meant to, and no device plugin does.

        It is meant to where it is installed with its half for GPUs, and no device plugin is installed at all.
        """
        if need(self.pods):
            return False
        if need(self.node.only_dra_serves):
            return True
        cluster = self.node.cluster
        return GPU_DRIVER in need(cluster.dra.halves) and not need(cluster.stack.device_plugins)

    @derived
    def is_partitioned(self) -> bool:
        """Whether GKE's plugin was told to cut this node's GPUs into partitions."""
        return GKE_PARTITION in need(self.node.labels)

    @derived
    def contested(self) -> dict[str, tuple[str, ...]]:
        """Resources that plugins of more than one owner serve or mean to serve on this node, with their pods."""
        claims: dict[str, dict[str, str]] = {}
        for pod in (*need(self.pods), *need(self.others)):
            owner = next((one.uid for one in need(pod.object).metadata.owner_references if one.controller), pod.name)
            for resource in self._claimed(pod):
                claims.setdefault(resource, {}).setdefault(owner, f"{pod.namespace}/{pod.name}")
        return {resource: tuple(owners.values()) for resource, owners in claims.items() if len(owners) > 1}

    def _claimed(self, pod: "Pod") -> tuple[str, ...]:
        if need(pod.component) is Component.OTHER_DEVICE_PLUGIN:
            container = main_container(need(pod.object).spec)
            named = setting(container, "--resource-name", "")
            is_fork = component_of(container) is Component.DEVICE_PLUGIN
            return (named,) if named else (DEFAULT_RESOURCE,) if is_fork else ()
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
    def is_forgotten(self) -> bool:
        """Whether a plugin runs and registered, and the kubelet no longer holds its connection.

        Nothing that it serves is allocatable, all of it is in capacity, and its log, read since its start, took no
        device out of service: then the kubelet did, as it does where a connection ends (another plugin of the same
        resource ended, or the kubelet restarted unnoticed). Source: pkg/kubelet/cm/devicemanager, endpoint.go.
        """
        offer = need(self.offer)
        for _, log in need(self.logs):
            served = [name for name in log.registered if offer.capacity.get(name)]
            if served and log.has_start and not log.unhealthy and not any(offer.allocatable[name] for name in served):
                return True
        return False

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

    def _requested(self, namespace: str, source: Source) -> Requested:
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

    def _chosen(self, name: str, source: Source, found: ConfigMapDocument) -> Requested:
        data = found.data or {}
        entry: str | None
        try:
            if source.manager:
                label = need(self.node.labels).get(source.label)
                entry, chosen_by = choose_entry(data, label=label, default=source.default, fallbacks=source.fallbacks)
            else:
                entry, chosen_by = (
                    source.entry if source.entry in data else only_entry(data, source),
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
        offers one device whatever the number of GPUs (since 0.19.1). A service of the node's image shares and
        partitions by settings that nobody reads: what it offers will do, if it is at least one for each GPU. Source:
        internal/rm/device_map.go; Bottlerocket, settings.kubelet-device-plugins.
        """
        if not need(self.pods) and need(self.is_host_service):
            offered = {name: need(self.offer).capacity.get(name, 0) for name in need(self.serving).resources}
            if sum(offered.values()) >= len(need(self.node.gpus)):
                return offered
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
        return need(self.node.driver.mig_profiles(gpu)) if need(self.node.driver.mig_is_on(gpu)) else None

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
        name = config.one_name or DEFAULT_RESOURCE
        if config.mig_strategy != "mixed":
            return {name: int(count)}
        if labels.get("nvidia.com/gpu.replicas") == "0":
            return mig
        return {name: self._whole(name, int(count), config) if mig else int(count), **mig}

    def _whole(self, name: str, count: int, config: PluginConfig) -> int:
        """Return how many GPUs of some with MIG are whole, as far as that can be told: labels count both together.

        What the node offers is believed up to the number of all. Source: k8s-device-plugin internal/lm/mig-strategy.go,
        newGPULabelers (the label of a whole GPU overrides that of one in MIG mode, with the count of both).
        """
        shared = config.sharing.of(name)
        offered = need(self.node.capacity).get(shared.offered if shared else name, 0)
        return min(count, offered // (shared.replicas if shared else 1))


_MIG_RESOURCE: Final = "nvidia.com/mig-{}"

_MIG_COUNT: Final = re.compile(r"(nvidia\.com/mig-[0-9a-z.-]+)\.count")


def _parsed(pod: "Pod") -> PluginLog:
    container = main_container(need(pod.object).spec)
    source = f"cluster/logs/{pod.namespace}_{pod.name}_{container.name}.log"
    return need(parse_log(need(pod.log(container.name)), source))
