"""Which container engine the kubelet talks to, which distribution brings it, and whether it answers.

Sources: upstream-facts, section 5 (paths, sockets and services of the distributions); node.status.nodeInfo.
"""

import datetime
import enum
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.containerd import Running, running
from kube_gpucheck.evidence.readings import GapError, attempt, derived, need
from kube_gpucheck.evidence.stack import Component
from kube_gpucheck.evidence.toml import ConfigurationError
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.node import Node

CRICTL: Final = "crictl info"
PROCESSES: Final = "ps -e -o args="
"""The command lines of kubelet and engines, as far as they say paths, sockets and the cgroup driver."""
STARTS: Final = "TZ=UTC ps -e -o lstart=,comm="
"""When the kubelet and engines were started."""


class EngineKind(enum.Enum):
    """A container engine, as node.status names it."""

    CONTAINERD = "containerd"
    CRI_O = "cri-o"
    DOCKER = "docker"
    OTHER = "another engine"


class Distribution(enum.Enum):
    """What brings the engine and decides where its configuration lies."""

    RKE2 = "rke2"
    K3S = "k3s"
    K0S = "k0s"
    MICROK8S = "microk8s"
    OPENSHIFT = "openshift"
    GKE = "gke"
    EKS = "eks"
    TALOS = "talos"
    BOTTLEROCKET = "bottlerocket"
    PLAIN = "plain"

    @property
    def detects_nvidia_itself(self) -> bool:
        """Whether it looks for the NVIDIA runtime when its service starts, and then writes the handler."""
        return self in {Distribution.RKE2, Distribution.K3S}

    @property
    def embeds_its_engine(self) -> bool:
        """Whether it brings an engine of its own, with its own configuration and socket."""
        return self in {Distribution.RKE2, Distribution.K3S, Distribution.K0S, Distribution.MICROK8S}


CONFIGURATION: Final = {
    Distribution.RKE2: "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
    Distribution.K3S: "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    Distribution.K0S: "/etc/k0s/containerd.toml",
    Distribution.MICROK8S: "/var/snap/microk8s/current/args/containerd.toml",
}
"""The configuration in use; every other distribution's containerd reads `PLAIN_CONFIGURATION`."""
PLAIN_CONFIGURATION: Final = "/etc/containerd/config.toml"

_ENDS: Final = {
    Distribution.RKE2: "/agent/etc/containerd/config.toml",
    Distribution.K3S: "/agent/etc/containerd/config.toml",
    Distribution.K0S: "/containerd.toml",
    Distribution.MICROK8S: "/args/containerd.toml",
}
"""How the path ends where the data folder was moved (`--data-dir`)."""

TEMPLATES: Final = {
    Distribution.RKE2: ("config-v3.toml.tmpl", "config.toml.tmpl"),
    Distribution.K3S: ("config-v3.toml.tmpl", "config.toml.tmpl"),
    Distribution.MICROK8S: ("containerd-template.toml",),
}
"""The files, beside the configuration, from which it is written anew at each start."""

PLAIN_SOCKET: Final = "/run/containerd/containerd.sock"
_SOCKET: Final = {
    Distribution.RKE2: "/run/k3s/containerd/containerd.sock",
    Distribution.K3S: "/run/k3s/containerd/containerd.sock",
    Distribution.K0S: "/run/k0s/containerd.sock",
    Distribution.MICROK8S: "/var/snap/microk8s/common/run/containerd.sock",
}
_UNITS: Final = {
    Distribution.RKE2: ("rke2-server", "rke2-agent"),
    Distribution.K3S: ("k3s", "k3s-agent"),
    Distribution.K0S: ("k0scontroller", "k0sworker"),
    Distribution.MICROK8S: ("snap.microk8s.daemon-containerd",),
}
_OPERATORS_VALUES: Final = {
    Distribution.RKE2: f"CONTAINERD_SOCKET={_SOCKET[Distribution.RKE2]} and no CONTAINERD_CONFIG",
    Distribution.K3S: f"CONTAINERD_SOCKET={_SOCKET[Distribution.K3S]} and no CONTAINERD_CONFIG",
    Distribution.K0S: f"CONTAINERD_CONFIG=/etc/k0s/containerd.d/nvidia.toml, "
    f"CONTAINERD_SOCKET={_SOCKET[Distribution.K0S]} and RUNTIME_CONFIG_SOURCE=file",
    Distribution.MICROK8S: "CONTAINERD_CONFIG=/var/snap/microk8s/current/args/containerd-template.toml, "
    f"CONTAINERD_SOCKET={_SOCKET[Distribution.MICROK8S]} and RUNTIME_CONFIG_SOURCE=file",
    Distribution.GKE: "RUNTIME_CONFIG_SOURCE=file",
}
"""Source: NVIDIA/cloud-native-docs, gpu-operator/getting-started.rst and google-gke.rst; RKE2 documentation, "GPU
Operators"; gpu-operator issues 992 and 1323."""
_TEMPLATE_3_SINCE: Final = (2, 0)
_SERVER_LABELS: Final = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
_BY_KUBELET: Final = (
    (re.compile(r"\+rke2"), Distribution.RKE2),
    (re.compile(r"\+k3s"), Distribution.K3S),
    (re.compile(r"\+k0s"), Distribution.K0S),
    (re.compile(r"-gke\."), Distribution.GKE),
    (re.compile(r"-eks-"), Distribution.EKS),
)
_BY_IMAGE: Final = (
    (re.compile(r"^Bottlerocket"), Distribution.BOTTLEROCKET),
    (re.compile(r"^Talos"), Distribution.TALOS),
    (re.compile(r"^Red Hat Enterprise Linux CoreOS|^OpenShift"), Distribution.OPENSHIFT),
)
_BY_LABEL: Final = (
    ("microk8s.io/cluster", Distribution.MICROK8S),
    ("node.k0sproject.io/role", Distribution.K0S),
    ("node.openshift.io/os_id", Distribution.OPENSHIFT),
    ("cloud.google.com/gke-nodepool", Distribution.GKE),
    ("eks.amazonaws.com/nodegroup", Distribution.EKS),
)
KUBELET_CONFIGURATIONS: Final = ("/var/lib/kubelet/config.yaml", "/var/snap/microk8s/current/args/kubelet")
KUBELET_DROP_INS: Final = (
    "/var/lib/rancher/rke2/agent/etc/kubelet.conf.d",
    "/var/lib/rancher/k3s/agent/etc/kubelet.conf.d",
)
"""Where RKE2 and K3s write what the kubelet is told, by whatever way they were told: their own command line is hidden
from ps, as it may hold credentials. Source: k3s, pkg/cli/server/server.go, pkg/daemons/agent/agent_linux.go."""
_CGROUP_DRIVER: Final = re.compile(r"(?:^|\n)[ \t]*(?:--cgroup-driver=|cgroupDriver:[ \t]*)(\S{1,40})")
_CPU_MANAGER: Final = re.compile(r"(?:^|\n)[ \t]*(?:--cpu-manager-policy=|cpuManagerPolicy:[ \t]*)(\S{1,40})")
_CPU: Final = "cpuManagerPolicy"
_RUNC: Final = re.compile(r"runc version v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})(-rc)?")
_KUBELET_ASKS_SINCE: Final = (1, 31)
DAEMON_FILE: Final = "/etc/docker/daemon.json"
_ENDPOINT: Final = re.compile(
    r"(?:^|\n)[ \t]*(?:--container-runtime-endpoint=|containerRuntimeEndpoint:[ \t]*)(\S{1,300})"
)
_VERSION: Final = re.compile(r"\bv?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?\b")
_NO_ANSWER: Final = re.compile(
    r"connect: (?:no such file or directory|connection refused)|connection refused|DeadlineExceeded|"
    r"deadline exceeded|no such host|unknown service runtime\.|validate service connection|code = Unavailable|"
    r"code = Unimplemented",
    re.IGNORECASE,
)
_NOT_ALLOWED: Final = re.compile(r"permission denied|operation not permitted", re.IGNORECASE)
_DOWN: Final = re.compile(
    r"container runtime is down|container runtime status check|runtime core not ready|RuntimeReady=false", re.IGNORECASE
)
_COMPLAINT: Final = re.compile(
    r"(?:failed to load plugin io\.containerd\.grpc\.v1\.cri|no corresponding runtime configured|"
    r"(?:expected|unsupported) (?:containerd )?config version|failed to load TOML|invalid plugin config)"
    r'(?:[^"\\\n]|\\.){0,2000}|'  # up to the end of what a log puts between quotes
    r"^containerd: \(\d+, \d+\): [^\n]*",
    re.IGNORECASE | re.MULTILINE,
)


_STARTS: Final = 'msg="starting containerd"'
_STARTED_AS: Final = re.compile(r'msg="starting containerd"[^\n]{0,300}? version=(\S{1,100})')
_SERVES: Final = re.compile(r"[Ss]tart(?:ing)? cri plugin")
"""What containerd says when its CRI plugin has taken its configuration. Source: logs of 1.6.20 and of 2.0 to 2.3."""
_BY_SOCKET: Final = {
    "cri-dockerd": EngineKind.DOCKER,
    "dockershim": EngineKind.DOCKER,
    "crio": EngineKind.CRI_O,
    "containerd": EngineKind.CONTAINERD,
}
_DOCKERS_OWN: Final = ("/var/run/docker/", "/run/docker/")
"""Where dockerd keeps the configuration of a containerd that it starts for itself."""
_KUBELETS: Final = frozenset({"kubelet", "kubelite", "k3s", "rke2", "k0s"})
"""Programs that are a kubelet, or have one in them."""
_KUBELET_UNITS: Final = (
    *(unit for units in _UNITS.values() for unit in units if unit != "snap.microk8s.daemon-containerd"),
    "kubelet",
    "snap.microk8s.daemon-kubelite",
)
_PROGRAMS: Final = {
    "crio": "crio",
    "docker": "dockerd",
    "containerd": "containerd",
    **dict.fromkeys((unit for units in _UNITS.values() for unit in units), "containerd"),
}
"""Services, and the engine that each runs."""
_VERSIONED: Final = {EngineKind.CONTAINERD: "containerd", EngineKind.CRI_O: "crio"}


class Answer(msgspec.Struct, frozen=True):
    """Whether the engine answers for CRI. `how`: what says so. `why`: its words where it does not."""

    answers: bool
    how: str
    why: str = ""


class Engine:
    """The engine of one node."""

    def __init__(self, node: "Node") -> None:
        """Keep the node."""
        self.node = node
        self.host = node.host

    @derived
    def distribution(self) -> Distribution:
        """What brings the engine: from the kubelet's version, the node's labels and image, else from the files read.

        Source: status.nodeInfo.kubeletVersion (`+rke2r2`, `+k3s1`), osImage, labels.
        """
        document = self.node.object
        if isinstance(document, Missing) and document.kind is MissingKind.NOT_ASKED:
            return self._by_host()
        node = need(document)
        info = node.status.node_info
        for pattern, found in _BY_KUBELET:
            if pattern.search(info.kubelet_version):
                return found
        labels = node.metadata.labels or {}
        for key, found in _BY_LABEL:
            if key in labels:
                return found
        return next((found for pattern, found in _BY_IMAGE if pattern.search(info.os_image)), Distribution.PLAIN)

    def _by_host(self) -> Distribution:
        """Return what brings the engine behind the kubelet's socket, else what runs one, else what has its files here.

        An embedded engine whose kubelet was told of another socket is none: that one's files count.
        """
        endpoint = need(self.endpoint)
        there = [found for found, path in CONFIGURATION.items() if self._has_file(path)]
        if endpoint is not None:
            behind = [found for found, socket in _SOCKET.items() if socket == endpoint]
            return next((found for found in behind if found in there), next(iter(behind), Distribution.PLAIN))
        for words in need(self.processes):
            config = option(words, "--config", "-c") if program_of(words) == "containerd" else None
            started = [found for found, path in CONFIGURATION.items() if path == config]
            if started:
                return started[0]
        return next(iter(there), Distribution.PLAIN)

    def _has_file(self, path: str) -> bool:
        """Tell whether a file was looked for and is there."""
        read = self.host.read(f"file:{path}")
        return not not_asked(read) and not need(read).absent

    @derived
    def kind(self) -> EngineKind:
        """Which engine it is. Source: status.nodeInfo.containerRuntimeVersion, else the host."""
        document = self.node.object
        if not_asked(document):
            return need(self._kind_on_host)
        name = need(document).status.node_info.container_runtime_version.partition("://")[0]
        return next((kind for kind in EngineKind if kind.value == name), EngineKind.OTHER)

    @derived
    def _kind_on_host(self) -> EngineKind:
        """Which engine it is by the kubelet's socket, else by what runs, else by the services, else by the files.

        Missing where nothing tells of an engine, or of Docker alone on a host that has no kubelet.
        """
        endpoint = need(self.endpoint)
        if endpoint is not None:
            return next((kind for name, kind in _BY_SOCKET.items() if name in endpoint), EngineKind.OTHER)
        for programs in self._programs_by_weight():
            if "crio" in programs:
                return EngineKind.CRI_O
            if "cri-dockerd" in programs:
                return EngineKind.DOCKER
            if "dockerd" in programs and not need(self.has_kubelet):
                break
            if "containerd" in programs:
                return EngineKind.CONTAINERD
        else:
            reason = f"no container engine that could serve Kubernetes was found on {self.node.name}"
            raise GapError(Missing(MissingKind.NOT_ASKED, reason, f"nodes/{self.node.name}/host.json"))
        reason = f"{self.node.name} runs Docker and has no kubelet: it is no node of Kubernetes"
        raise GapError(Missing(MissingKind.NOT_ASKED, reason, f"nodes/{self.node.name}/host.json"))

    def _programs_by_weight(self) -> Iterator[frozenset[str]]:
        """Yield which engines run, whose services are active, which have files; what is not needed is not read."""
        yield need(self._running)
        yield need(self._active)
        yield need(self._on_disk)

    @derived
    def _running(self) -> frozenset[str]:
        """The engines and kubelets that run, by program; a containerd that Docker started for itself is none."""
        return frozenset(
            program_of(words)
            for words in need(self.processes)
            if not (option(words, "--config", "-c") or "").startswith(_DOCKERS_OWN)
        )

    @derived
    def _active(self) -> frozenset[str]:
        """The programs of the services that are active, of those that were asked about."""
        found = set()
        for unit, program in _PROGRAMS.items():
            shown = need(self._shown(unit))
            if shown is not None and shown.get("ActiveState") in {"active", "reloading"}:
                found.add(program)
        return frozenset(found)

    @derived
    def _on_disk(self) -> frozenset[str]:
        """The engines that have files here."""
        found = set()
        if any(self._has_file(key.removeprefix("file:")) for key in self.host.keys("file:/etc/crio/")):
            found.add("crio")
        if self._has_file(DAEMON_FILE):
            found.add("dockerd")
        printed = self.host.command("containerd --version")
        is_there = not not_asked(printed) and need(printed) is not None
        if is_there or any(self._has_file(path) for path in (PLAIN_CONFIGURATION, *CONFIGURATION.values())):
            found.add("containerd")
        return frozenset(found)

    @derived
    def has_kubelet(self) -> bool:
        """Whether the host tells of a kubelet: it runs, or its folder, configuration or service is there."""
        if need(self._running) & _KUBELETS or any(self._has_file(path) for path in KUBELET_CONFIGURATIONS):
            return True
        for key in self.host.keys("list:"):
            if key.endswith("/device-plugins") and need(self.host.listing(key.removeprefix("list:"))) is not None:
                return True
        return any(need(self._shown(unit)) is not None for unit in _KUBELET_UNITS)

    def _shown(self, unit: str) -> Reading[dict[str, str] | None]:
        """Return what systemctl shows of a service, None if it was not asked about or is not there."""

        def derive() -> dict[str, str] | None:
            printed = self.host.command(f"systemctl show {unit}")
            command = None if not_asked(printed) else need(printed)
            if command is None or command.status not in {None, 0} or "LoadState=not-found" in command.text:
                return None
            return dict(row.split("=", 1) for row in command.text.splitlines() if "=" in row)

        return attempt(derive)

    @derived
    def name(self) -> str:
        """The engine and its version, for a reader. Source: status.nodeInfo.containerRuntimeVersion, else the host."""
        document = self.node.object
        if not not_asked(document):
            return need(document).status.node_info.container_runtime_version
        release = need(self.release)
        return f"{need(self.kind).value}{'' if release is None else ' ' + '.'.join(map(str, release))}"

    @derived
    def release(self) -> tuple[int, ...] | None:
        """The numbers of the engine's version, two or three, None if the kubelet does not know it and nobody else does.

        Source: status.nodeInfo.containerRuntimeVersion; where that says Unknown or was not asked for, what the host's
        `containerd --version` or `crio --version` prints; for an embedded engine its log's word on its last start.
        """
        document = self.node.object
        if not not_asked(document):
            found = release_in(need(document).status.node_info.container_runtime_version.partition("://")[2])
            if found is not None:
                return found
        program = _VERSIONED.get(need(self.kind))
        if program is None:
            return None
        if need(self.distribution).embeds_its_engine:
            log = self.host.log("containerd")
            started = [] if not_asked(log) else _STARTED_AS.findall(need(log)[-1_000_000:])
            return release_in(started[-1]) if started else None
        printed = self.host.command(f"{program} --version")
        command = None if not_asked(printed) else need(printed)
        return None if command is None else release_in(command.text)

    @derived
    def processes(self) -> tuple[tuple[str, ...], ...]:
        """The command lines of the kubelet and of engines, in words; none where nobody asked for them."""
        printed = self.host.command(PROCESSES)
        command = None if not_asked(printed) else need(printed)
        return () if command is None else tuple(tuple(row.split()) for row in command.text.splitlines() if row.strip())

    @derived
    def endpoint(self) -> str | None:
        """The socket that the kubelet talks to, None where nothing that was read says so.

        Source: the kubelet's `--container-runtime-endpoint`, else `containerRuntimeEndpoint` of its configuration and
        drop-ins.
        """
        for words in need(self.processes):
            said = option(words, "--container-runtime-endpoint") if program_of(words) in _KUBELETS else None
            if said is not None:
                return _socket_path(said)
        found = self._kubelet_is_told(_ENDPOINT)
        return None if found is None else _socket_path(found)

    def _kubelet_is_told(self, setting: re.Pattern[str]) -> str | None:
        """Return what the kubelet's files say of a setting, None if nothing; of drop-ins the last one counts."""
        asked = (key.removeprefix("file:") for key in self.host.keys("file:/var/lib/rancher/"))
        below = [path for path in asked if path.startswith(KUBELET_DROP_INS)]
        for path in (*sorted(below, reverse=True), *KUBELET_CONFIGURATIONS):
            text = self.host.file(path)
            found = None if not_asked(text) else setting.search(need(text) or "")
            if found is not None:
                return found[1].strip("\"'")
        return None

    @derived
    def kubelets_cgroup_driver(self) -> str | None:
        """The cgroup driver that the kubelet is told, None where nothing that was read says so, or it asks the engine.

        From 1.31 on it asks an engine that can tell (containerd 2.0, CRI-O 1.28); one whose release was not asked for
        is taken to. Source: the kubelet's `--cgroup-driver`, else `cgroupDriver` of its configuration; Kubernetes
        documentation, "Container Runtimes".
        """
        release, document = need(self.release), self.node.object
        kubelet = None if not_asked(document) else release_in(need(document).status.node_info.kubelet_version)
        asks = not_asked(document) or (kubelet is not None and kubelet >= _KUBELET_ASKS_SINCE)
        tells = (1, 28) if need(self.kind) is EngineKind.CRI_O else (2, 0)
        if asks and release is not None and release >= tells:
            return None
        for words in need(self.processes):
            said = option(words, "--cgroup-driver") if program_of(words) == "kubelet" else None
            if said is not None:
                return said
        return self._kubelet_is_told(_CGROUP_DRIVER)

    @derived
    def cpu_manager_policy(self) -> str:
        """The kubelet's policy of giving CPUs, `none` where what was read says nothing.

        Missing where neither its command line nor its configuration was read for it. Source: `--cpu-manager-policy`,
        else `cpuManagerPolicy` of its configuration; Kubernetes documentation, "Control CPU Management Policies".
        """
        for words in need(self.processes):
            said = option(words, "--cpu-manager-policy") if program_of(words) in _KUBELETS else None
            if said is not None:
                return said
        told = self._kubelet_is_told(_CPU_MANAGER)
        if told is not None:
            return told
        reads = [self.host.read(f"file:{path}") for path in KUBELET_CONFIGURATIONS]
        whole = [one for one in reads if isinstance(one, Seen) and "cpuManagerPolicy" in (one.value.filtered or _CPU)]
        if not any(not one.value.absent for one in whole):
            source = f"nodes/{self.node.name}/host.json"
            reason = f"the kubelet's configuration on {self.node.name} was not read for its CPU manager"
            need(next((one for one in reads if isinstance(one, Missing) and not not_asked(one)), None) or Seen(None))
            raise GapError(Missing(MissingKind.NOT_ASKED, reason, source, "--probe"))
        return "none"

    @derived
    def runc_release(self) -> tuple[int, int, int] | None:
        """The release of runc on the host's path, None where none tells; a candidate counts as the one before it.

        Source: `runc --version`.
        """
        printed = self.host.command("runc --version")
        command = None if not_asked(printed) else need(printed)
        found = _RUNC.search(command.text) if command is not None else None
        if found is None:
            return None
        release = (int(found[1]), int(found[2]), int(found[3]))
        return (release[0], release[1], -1) if found[4] and release[2] == 0 else release

    @derived
    def uses_another_containerd(self) -> bool:
        """Whether the kubelet of a distribution that embeds an engine was told to use the system's containerd."""
        own = _SOCKET.get(need(self.distribution))
        return own is not None and need(self.endpoint) == PLAIN_SOCKET

    @derived
    def configuration_path(self) -> str:
        """Where containerd's main file lies on this distribution; where it was read from if its folder was moved.

        The engine's own `--config` decides where its `--address` is the kubelet's endpoint.
        """
        distribution = need(self.distribution)
        if need(self.kind) is EngineKind.DOCKER:
            return DAEMON_FILE
        endpoint = need(self.endpoint)
        for words in need(self.processes):
            if program_of(words) != "containerd" or endpoint is None:
                continue
            address, config = option(words, "--address", "-a"), option(words, "--config", "-c")
            if config is not None and _socket_path(address or PLAIN_SOCKET) == endpoint:
                return config
        if need(self.uses_another_containerd):
            return PLAIN_CONFIGURATION
        usual = CONFIGURATION.get(distribution, PLAIN_CONFIGURATION)
        asked = [key.removeprefix("file:") for key in self.host.keys("file:")]
        end = _ENDS.get(distribution)
        if usual in asked or end is None:
            return usual
        return next((path for path in asked if path.endswith(end)), usual)

    @derived
    def unit(self) -> str:
        """The service that runs the engine; of two that a distribution has, the one asked about, else by role."""
        if need(self.kind) is EngineKind.CRI_O:
            return "crio"
        if need(self.kind) is EngineKind.DOCKER:
            return "docker"
        if need(self.uses_another_containerd):
            return "containerd"
        units = _UNITS.get(need(self.distribution), ("containerd",))
        asked = [one for one in units if f"exec:systemctl show {one}" in self.host.keys("exec:systemctl show")]
        if asked:
            return asked[0]
        labels = self.node.labels
        is_server = isinstance(labels, Missing) or any(key in labels.value for key in _SERVER_LABELS)
        return units[0] if is_server else units[-1]

    @property
    def restart(self) -> str:
        """The command that restarts the engine, for a remedy."""
        unit, distribution = self.unit, self.distribution
        match distribution.value if isinstance(distribution, Seen) else Distribution.PLAIN:
            case Distribution.MICROK8S:
                return "microk8s stop && microk8s start"
            case Distribution.TALOS:
                return "talosctl -n NODE reboot"
            case Distribution.BOTTLEROCKET:
                return "apiclient reboot"
            case _:
                return f"systemctl restart {unit.value if isinstance(unit, Seen) else 'containerd'}"

    @property
    def editable(self) -> str:
        """The file that a person edits to change the engine's configuration so that it lasts, for a remedy."""
        kind, release = self.kind, self.release
        if isinstance(kind, Seen) and kind.value is EngineKind.CRI_O:
            return "a file of /etc/crio/crio.conf.d"
        if isinstance(kind, Seen) and kind.value is EngineKind.DOCKER:
            return DAEMON_FILE
        distribution = self.distribution
        found = distribution.value if isinstance(distribution, Seen) else Distribution.PLAIN
        match found:
            case Distribution.RKE2 | Distribution.K3S:
                new = isinstance(release, Seen) and release.value is not None and release.value >= _TEMPLATE_3_SINCE
                name = TEMPLATES[found][0 if new else 1]
                folder = CONFIGURATION[found].rpartition("/")[0]
                return f"{folder}/{name}, below a first line '{{{{ template \"base\" . }}}}'"
            case Distribution.K0S:
                return "/etc/k0s/containerd.d/nvidia.toml"
            case Distribution.MICROK8S:
                return "/var/snap/microk8s/current/args/containerd-template.toml"
            case Distribution.TALOS:
                return "/etc/cri/conf.d/20-customization.part (machine.files of the machine's configuration)"
            case Distribution.BOTTLEROCKET:
                return "the node's settings (apiclient set)"
            case _:
                path = self.configuration_path
                return path.value if isinstance(path, Seen) else PLAIN_CONFIGURATION

    @property
    def configure(self) -> str:
        """How the NVIDIA handler gets into this distribution's configuration, for a remedy."""
        toolkit, kind = self.node.deliveries.serving(Component.TOOLKIT), self.kind
        distribution = self.distribution
        found = distribution.value if isinstance(distribution, Seen) else Distribution.PLAIN
        if isinstance(toolkit, Seen) and toolkit.value:
            return self._configure_by_operator(found)
        if isinstance(kind, Seen) and kind.value in {EngineKind.CRI_O, EngineKind.DOCKER}:
            if found is Distribution.OPENSHIFT:
                return "let the GPU Operator do it (toolkit.enabled=true in the ClusterPolicy)"
            name = "crio" if kind.value is EngineKind.CRI_O else "docker"
            return f"run 'nvidia-ctk runtime configure --runtime={name}', then '{self.restart}'"
        match found:
            case Distribution.RKE2 | Distribution.K3S:
                return f"run '{self.restart}': its service looks for the toolkit when it starts, and writes the handler"
            case Distribution.K0S:
                file = self.editable
                return f"run 'nvidia-ctk runtime configure --runtime=containerd --config={file}', then '{self.restart}'"
            case Distribution.MICROK8S:
                return "run 'microk8s enable nvidia': it writes the handler into containerd-template.toml"
            case Distribution.TALOS:
                return (
                    "add the system extension nvidia-container-toolkit to the machine's image, and upgrade the machine"
                )
            case Distribution.BOTTLEROCKET:
                return "take an NVIDIA variant of Bottlerocket for the node, whose image has the handler"
            case _:
                return f"run 'nvidia-ctk runtime configure --runtime=containerd', then '{self.restart}'"

    def _configure_by_operator(self, distribution: Distribution) -> str:
        """Say what the GPU Operator's toolkit must be told, so that it writes this engine's configuration."""
        said = _OPERATORS_VALUES.get(distribution, "")
        values = f"set {said} in toolkit.env of the ClusterPolicy, " if said else ""
        restart = f", then '{self.restart}'" if distribution.detects_nvidia_itself else ""
        return f"{values}delete the pod of the GPU Operator's toolkit on the node: it writes the handler{restart}"

    @derived
    def started_at(self) -> datetime.datetime | None:
        """When the engine was started, None if it does not run.

        Source: systemctl's ActiveEnterTimestamp; where no systemd is, ps.
        """
        line = f"systemctl show {need(self.unit)}"
        command = need(self.host.command(line))
        if command is None:
            return need(self._process_started_at)
        shown = dict(row.split("=", 1) for row in command.text.splitlines() if "=" in row)
        if shown.get("ActiveState", "active") not in {"active", "reloading"}:
            return None
        stamp = shown.get("ActiveEnterTimestamp")
        source = f"nodes/{self.node.name}/host.json#exec:{line}"
        if stamp is None:
            raise GapError(Missing(MissingKind.UNPARSABLE, f"'{line}' has no ActiveEnterTimestamp", source))
        found = moment(stamp, self.node.cluster.gathered_at)
        if found is None:
            raise GapError(Missing(MissingKind.UNPARSABLE, f"ActiveEnterTimestamp is '{stamp}', no time", source))
        return found

    @derived
    def _process_started_at(self) -> datetime.datetime | None:
        """When the engine's process was started, None if there is none or nobody asked."""
        printed = self.host.command(STARTS)
        command = None if not_asked(printed) else need(printed)
        program = _PROGRAMS.get(need(self.unit))
        rows = (_STARTED.fullmatch(row) for row in (command.text if command else "").splitlines())
        found = [moment(row[1], self.host.read_at) for row in rows if row is not None and row[2] == program]
        if len(found) > 1:
            reason = f"{len(found)} processes '{program}' run, and which of them is the kubelet's engine is not known"
            raise GapError(Missing(MissingKind.ERROR, reason, f"nodes/{self.node.name}/host.json#exec:{STARTS}"))
        return found[0] if found else None

    @derived
    def running(self) -> Running | None:
        """What the running engine says of itself, None if nothing on the host could ask it. Source: `crictl info`.

        An answer that came from another engine's socket counts as none.
        """
        command = need(self.host.command(CRICTL))
        source = f"nodes/{self.node.name}/host.json#exec:{CRICTL}"
        if command is None:
            return None
        if command.status not in {None, 0} or not command.text.lstrip().startswith("{"):
            raise GapError(self._refusal(command.text, source))
        try:
            found = running(command.text)
        except ConfigurationError as error:
            raise GapError(Missing(MissingKind.UNPARSABLE, str(error), source)) from error
        socket = _SOCKET.get(need(self.distribution))
        if socket is not None and need(self.uses_another_containerd):
            socket = PLAIN_SOCKET
        if socket is not None and found.endpoint and _socket_path(found.endpoint) != socket:
            return None
        return found

    def _refusal(self, text: str, source: str) -> Missing:
        words = " ".join(text.split())[:300]
        kind = MissingKind.FORBIDDEN if _NOT_ALLOWED.search(text) else MissingKind.ERROR
        return Missing(kind, f"'{CRICTL}' got no answer: {words or 'it printed nothing'}", source)

    @derived
    def answer(self) -> Answer:
        """Whether the engine answers for CRI.

        Source: `crictl info`; where it was not asked or could not ask, what containerd's log says since its last
        start; then the node's condition Ready, which the kubelet gives only while the engine answers it; on a host
        alone, whether the engine runs.
        """
        asked = self.host.command(CRICTL)
        if not (isinstance(asked, Missing) and asked.kind is MissingKind.NOT_ASKED):
            command = need(asked)
            if command is not None and (command.status not in {None, 0} or not command.text.lstrip().startswith("{")):
                if _NOT_ALLOWED.search(command.text) or not _NO_ANSWER.search(command.text):
                    source = f"nodes/{self.node.name}/host.json#exec:{CRICTL}"
                    raise GapError(self._refusal(command.text, source))
                return Answer(answers=False, how=f"'{CRICTL}'", why=" ".join(command.text.split())[:300])
            found = need(self.running) if command is not None else None
            if found is not None and found.ready is not None:
                return Answer(found.ready, f"'{CRICTL}'", found.reason)
            if found is not None and found.handlers is not None:
                return Answer(answers=True, how=f"'{CRICTL}'")
        complaint = self.complaint
        if not not_asked(complaint) and need(complaint) is not None:
            return Answer(answers=False, how="the engine's log", why=need(complaint) or "")
        return self._by_state() if not_asked(self.node.object) else self._by_condition()

    def _by_state(self) -> Answer:
        """Tell by process and service whether the engine runs, and of containerd by its log that it serves CRI.

        One that does not run is a fault where a kubelet needs it.
        """
        kind, unit = need(self.kind), need(self.unit)
        source, where = f"nodes/{self.node.name}/host.json", self.node.name
        program = {EngineKind.CONTAINERD: "containerd", EngineKind.CRI_O: "crio", EngineKind.DOCKER: "cri-dockerd"}
        shown = need(self._shown(unit))
        if program.get(kind) in need(self._running):
            how = "its process runs"
        elif shown is not None and shown.get("ActiveState") in {"active", "reloading"}:
            how = f"'systemctl show {unit}'"
        elif not need(self.has_kubelet) or (shown is None and not_asked(self.host.command(PROCESSES))):
            reason = f"nothing that was read tells whether the engine of {where} runs, or that a kubelet needs it"
            raise GapError(Missing(MissingKind.NOT_ASKED, reason, source))
        else:
            state = "" if shown is None else f", '{unit}' is {shown.get('ActiveState')} ({shown.get('Result')})"
            return Answer(answers=False, how="the host", why=f"no process of {kind.value} runs{state}")
        if kind is not EngineKind.CONTAINERD:
            return Answer(answers=True, how=how)
        log = self.host.log("containerd")
        text = "" if not_asked(log) else need(log)[-1_000_000:]
        if not _SERVES.search(text, max(text.rfind(_STARTS), 0)):
            reason = f"containerd runs on {where}; whether it answers for CRI only 'crictl info' or its log could tell"
            raise GapError(Missing(MissingKind.NOT_ASKED, reason, source))
        return Answer(answers=True, how=f"{how}, and its log says that it serves CRI")

    def _by_condition(self) -> Answer:
        node = need(self.node.object)
        ready = next((one for one in node.status.conditions if one.type == "Ready"), None)
        source = "cluster/nodes.json"
        if ready is None:
            raise GapError(Missing(MissingKind.ERROR, f"node '{self.node.name}' has no condition Ready", source))
        if _DOWN.search(ready.message):
            return Answer(answers=False, how="the node's condition Ready", why=ready.message[:300])
        if ready.status == "True" or "NetworkReady=false" in ready.message:
            return Answer(answers=True, how="the node's condition Ready")
        reason = f"Ready is {ready.status} ({ready.reason}: {ready.message[:200]}), which says nothing of the engine"
        raise GapError(Missing(MissingKind.ERROR, reason, source))

    @derived
    def complaint(self) -> str | None:
        """The last line since containerd's last start that says why its CRI plugin is not there, None if none does."""
        log = need(self.host.log("containerd"))[-1_000_000:]
        found = _COMPLAINT.findall(log, max(log.rfind(_STARTS), 0))
        return None if not found else str(found[-1])[:300].replace('\\"', '"')


def program_of(words: tuple[str, ...]) -> str:
    """Return the name of the program that a command line calls."""
    return words[0].rpartition("/")[2] if words else ""


def option(words: tuple[str, ...], *names: str) -> str | None:
    """Return what an option is given, as `--name=value` or `--name value`, None if it is not there."""
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else next(iter(words[place + 1 : place + 2]), None)
    return None


def _socket_path(endpoint: str) -> str:
    """Return an endpoint as a path below /run: `unix:///var/run/…` and `/run/…` are one. MicroK8s writes a variable."""
    path = endpoint.strip("\"'").removeprefix("unix://").replace("${SNAP_COMMON}", "/var/snap/microk8s/common")
    return path.removeprefix("/var") if path.startswith("/var/run/") else path


def release_in(text: str) -> tuple[int, ...] | None:
    """Return the numbers of the first version in a text, two or three, None if there is none (`Unknown`)."""
    found = _VERSION.search(text)
    return tuple(int(one) for one in found.groups() if one) if found else None


_SYSTEMD: Final = re.compile(r"(?:[A-Z][a-z]{2} )?(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d)(?::(\d\d)(?:\.\d+)?)?(.*)")
_LS: Final = re.compile(r"([A-Z][a-z]{2}) +(\d{1,2}) +(?:(\d{1,2}):(\d\d)|(\d{4}))")
_PS: Final = re.compile(r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d) (\d{4})")
_STARTED: Final = re.compile(r"([A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}) (\S.{0,63})")
_OFFSET: Final = re.compile(r"([+-])(\d\d):?(\d\d)")
_MONTHS: Final = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def moment(text: str, around: datetime.datetime) -> datetime.datetime | None:
    """Return a time as RFC 3339, systemctl, ps, `ls --full-time` or `ls -l` write it, None if it is no time.

    A time without a zone is taken for UTC; one of `ls -l` without a year lies in the twelve months before `around`.
    """
    try:
        found = _SYSTEMD.fullmatch(text.strip())
        if found:
            year, month, day, hour, minute = (int(part) for part in found.groups()[:5])
            zone = _zone(found[7].strip())
            if zone is None:
                return None
            return datetime.datetime(year, month, day, hour, minute, int(found[6] or 0), tzinfo=zone)
        shown = _PS.fullmatch(text.strip())
        if shown and shown[1] in _MONTHS:
            day, hour, minute, second, year = (int(part) for part in shown.groups()[1:])
            month = _MONTHS.index(shown[1]) + 1
            return datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.timezone.utc)
        listed = _LS.fullmatch(text.strip())
        if listed is None or listed[1] not in _MONTHS:
            return None
        month, day = _MONTHS.index(listed[1]) + 1, int(listed[2])
        if listed[5]:
            return datetime.datetime(int(listed[5]), month, day, tzinfo=datetime.timezone.utc)
        hour, minute = int(listed[3]), int(listed[4])
        here = datetime.datetime(around.year, month, day, hour, minute, tzinfo=datetime.timezone.utc)
        return here.replace(year=around.year - 1) if here > around + datetime.timedelta(days=1) else here
    except ValueError:
        return None


def _zone(text: str) -> datetime.tzinfo | None:
    if text in {"", "Z", "UTC", "GMT"}:
        return datetime.timezone.utc
    found = _OFFSET.fullmatch(text)
    if found is None:
        return None
    offset = datetime.timedelta(hours=int(found[2]), minutes=int(found[3]))
    return datetime.timezone(-offset if found[1] == "-" else offset)


def not_asked(reading: Reading[object]) -> bool:
    """Tell whether a source was never asked, so that another may speak for it."""
    return isinstance(reading, Missing) and reading.kind is MissingKind.NOT_ASKED
