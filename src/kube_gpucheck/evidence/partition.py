"""MIG on one node: the layout that was asked for, how far its change has come, and which MIG devices there are.

Judges nothing. Sources: mig-parted 0.10.0 to 0.15.0 (cmd/nvidia-mig-manager, pkg/mig/reconfigure, reconfigure-mig.sh,
api/spec/v1), k8s-device-plugin 0.15 to 0.20 (internal/rm/device_map.go, internal/lm/mig-strategy.go).
"""

import datetime
import functools
import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
import yaml

from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.pluginlog import LOST, brief
from kube_gpucheck.evidence.podspec import main_container, setting, source_of
from kube_gpucheck.evidence.readings import GapError, attempt, derived, need
from kube_gpucheck.evidence.sharing import DEFAULT_RESOURCE
from kube_gpucheck.evidence.stack import DEPLOY_PREFIX, Component
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.daemonset import DaemonSet
    from kube_gpucheck.evidence.node import Node
    from kube_gpucheck.evidence.pod import Pod

CONFIG_LABEL: Final = "nvidia.com/mig.config"
"""The node label by which somebody asks for a layout, by its name in mig-parted's configuration."""
STATE_LABEL: Final = "nvidia.com/mig.config.state"
"""The MIG manager's answer: pending, rebooting, success or failed."""
UNDER_WAY: Final = frozenset({"pending", "rebooting"})
ALL_DISABLED: Final = "all-disabled"
"""The layout that the operator asks for on nodes that nobody labelled: MIG off on every GPU."""
PATIENCE: Final = datetime.timedelta(minutes=30)
"""A change takes no longer: five waits of at most five minutes each, then the change itself. Source: mig-parted."""
PAUSED: Final = re.compile(r"paused-for-(?:mig-change|driver-upgrade)")
"""What a deploy label is set to while MIG or the driver is changed.

Source: mig-parted, pkg/mig/reconfigure; k8s-driver-manager, driver-manager (paused-for-driver-upgrade).
"""
PAUSED_FOR_MIG: Final = "paused-for-mig-change"
_SETTLED: Final = frozenset({"", "upgrade-done", "upgrade-failed"})
_UPGRADE_LABEL: Final = "nvidia.com/gpu-driver-upgrade-state"

_STARTS: Final = re.compile(r"Updating to MIG config: (\S{1,200}?)\"?\s*$", re.MULTILINE)
_WAITS: Final = re.compile(r"Waiting for change to '[^']{1,100}' label")
_STAMP: Final = re.compile(r'^time="(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d))"', re.MULTILINE)
_SAID: Final = re.compile(r'^time="[^"]{1,40}" level=\w{1,8} msg="(.*)"\s*$')
_COMPLAINS: Final = re.compile(
    r"level=(?:fatal|error|panic) |^(?:Unable to |ERROR: |error: )|In use by another client|[Nn]ot [Ss]upported"
)
_NORMAL: Final = re.compile(
    r"[Aa]ssertion failure: selected configuration not currently applied|Error: (?:.{0,200}: )?exit status \d{1,3}\""
    r"|Error Starting \S{1,100}: skipping"
)
"""Errors that every change writes (is the layout applied already? no), and those that only repeat that it failed."""
_CLIENT: Final = re.compile(r"In use by another client")
_PENDS: Final = re.compile(r"Mode change pending: true")
_MIG_RESOURCE: Final = "nvidia.com/mig-"
_SHOWN: Final = 8
_MAX_LINE: Final = 4_000
_MAX_CHARS: Final = 1_100_000  # a ConfigMap holds at most 1 MiB


class Layout(msgspec.Struct, frozen=True):
    """The MIG devices of one GPU, by profile in NVML's order; `is_on`: MIG is on."""

    gpu: str
    is_on: bool
    profiles: tuple[str, ...]

    def __str__(self) -> str:
        """Return it in a reader's words."""
        if not self.is_on:
            return f"{self.gpu}: MIG off"
        return f"{self.gpu}: {spoken(Counter(self.profiles))}"


class Wish(msgspec.Struct, frozen=True):
    """What one part of a named layout wants of the GPUs that it is about.

    `filters`: ids of devices as mig-parted writes them (`0x20B010DE`), empty for all. `places`: indices of GPUs, None
    for all. `devices`: how many of each profile.
    """

    filters: tuple[str, ...]
    places: tuple[int, ...] | None
    is_on: bool
    devices: Mapping[str, int]


class Attempt(msgspec.Struct, frozen=True):
    """The last change that the MIG manager's log tells of.

    `config`: the layout that it was about, None if the log does not reach back to it. `is_over`: it waits for a new
    label again. `last`: when it last wrote a line with a time. `problem`: why it failed, as far as it says. `client`: a
    program holds a GPU. `pends`: the mode was set, and waits for a reset of the GPU.
    """

    config: str | None
    is_over: bool
    last: datetime.datetime | None
    problem: str | None
    client: bool
    pends: bool


class Partitions:
    """MIG on one node."""

    def __init__(self, node: "Node") -> None:
        """Keep the node."""
        self.node = node

    # --- what was asked for ------------------------------------------------------------------------

    @derived
    def asked(self) -> str | None:
        """The layout that is asked for by name, None if none is. Source: the node's label nvidia.com/mig.config."""
        return need(self.node.labels).get(CONFIG_LABEL) or None

    @derived
    def state(self) -> str | None:
        """How far that is, None if the MIG manager has not said. Source: the label nvidia.com/mig.config.state."""
        return need(self.node.labels).get(STATE_LABEL) or None

    @derived
    def has_no_mig(self) -> bool:
        """Whether GFD says that none of the node's GPUs can have MIG. Source: nvidia.com/mig.capable."""
        return need(self.node.labels).get("nvidia.com/mig.capable") == "false"

    # --- who changes it ----------------------------------------------------------------------------

    @derived
    def managers(self) -> "tuple[DaemonSet, ...]":
        """The DaemonSets that are MIG managers, those first that may run on this node."""
        found = self.node.cluster.stack.of(Component.MIG_MANAGER)
        return tuple(sorted(found, key=lambda one: need(one.rejection(self.node)) is not None))

    @derived
    def manager(self) -> "Pod | None":
        """The MIG manager's pod on this node, None if there is none. One that is being deleted does not count."""
        for pod in need(self.node.pods):
            if need(pod.component) is Component.MIG_MANAGER and not need(pod.is_leaving) and not need(pod.is_finished):
                return pod
        return None

    @derived
    def stops_the_kubelet(self) -> bool:
        """Whether the MIG manager on the node was told to stop services of the host, the kubelet among them.

        It does so where MIG's mode changes. Source: mig-parted, pkg/mig/reconfigure, checkMigModeChangeRequired.
        """
        pod = need(self.manager)
        if pod is None:
            return False
        container = main_container(need(pod.object).spec)
        told = setting(container, "--with-shutdown-host-gpu-clients", "WITH_SHUTDOWN_HOST_GPU_CLIENTS") or ""
        return told.lower() in {"true", "1", "t"}

    @derived
    def attempt(self) -> Attempt:
        """The last change that the MIG manager's log tells of; missing where there is no such log."""
        pod = need(self.manager)
        if pod is None:
            raise GapError(_gap(MissingKind.ERROR, f"no MIG manager is on {self.node.name}", f"nodes/{self.node.name}"))
        name = main_container(need(pod.object).spec).name
        text = need(pod.log(name))
        head = text[:_MAX_LINE].lstrip()
        if LOST.match(head):
            raise GapError(_gap(MissingKind.ERROR, brief(head), f"logs/{pod.namespace}/{pod.name}/{name}"))
        return parse_attempt(text)

    @derived
    def is_at_work(self) -> bool:
        """Whether a change of the layout goes on: the label says so, and the MIG manager was at it half an hour ago."""
        if need(self.state) not in UNDER_WAY:
            return False
        attempt = need(self.attempt)
        now = self.node.cluster.gathered_at
        return not attempt.is_over and attempt.last is not None and now - attempt.last <= PATIENCE

    @derived
    def configurations(self) -> "Mapping[str, tuple[Wish, ...]] | None":
        """The layouts that the MIG manager knows by name.

        None where it makes them itself from the hardware, and where its ConfigMap is not there or of another form.
        """
        pod = need(self.manager)
        spec = need(pod.object).spec if pod is not None else None
        source = source_of(spec) if spec is not None else None
        if pod is None or source is None or not source.config_map:
            return None
        for one in need(self.node.cluster.objects("configmaps")):
            if one.metadata.name == source.config_map and one.metadata.namespace == pod.namespace:
                return parse_layouts((one.data or {}).get(source.entry, ""))
        return None

    @property
    def configuration_name(self) -> str:
        """What the layouts stand in, in a reader's words."""
        pod = self.manager
        document = pod.value.object if isinstance(pod, Seen) and pod.value is not None else None
        source = source_of(document.value.spec) if isinstance(document, Seen) else None
        space = pod.value.namespace if isinstance(pod, Seen) and pod.value is not None else ""
        return (
            f"ConfigMap {space}/{source.config_map}"
            if source is not None and source.config_map
            else "its configuration"
        )

    # --- what there is -----------------------------------------------------------------------------

    @derived
    def unlisted(self) -> str | None:
        """Why NVML lists no GPU of this node, in a reader's words; None if it lists one, or nobody asked it."""
        if is_not_asked(self.node.driver.nvml_init_code):
            return None
        code = need(self.node.driver.nvml_init_code)
        if code:
            return f"NVML does not start (code {code}); DRV-005 judges that"
        listed = any(gpu.identity.index is not None for gpu in need(self.node.gpus))
        return None if listed else "NVML lists no GPU; DRV-006 judges that"

    @derived
    def layouts(self) -> tuple[Layout, ...]:
        """Each GPU that NVML lists, with its MIG devices; in order of PCI address."""
        found = []
        for gpu in need(self.node.gpus):
            if gpu.identity.index is None:
                continue
            on = need(self.node.driver.mig_is_on(gpu.identity))
            found.append(Layout(gpu.name, on, need(self.node.driver.mig_profiles(gpu.identity)) if on else ()))
        return tuple(found)

    @derived
    def is_used(self) -> bool:
        """Whether the node's labels or its capacity speak of MIG devices, or a GPU has MIG on."""
        labels = need(self.node.labels)
        names = (*labels, *need(self.node.capacity))
        if any(name.startswith(_MIG_RESOURCE) for name in names) or "-MIG-" in labels.get("nvidia.com/gpu.product", ""):
            return True
        return any(one.is_on for one in need(self.layouts))

    @derived
    def strategy(self) -> str:
        """How the device plugin offers MIG devices: none, single or mixed; none where it is the provider's own."""
        if need(self.node.plugin.is_provider) or not need(self.node.plugin.pods):
            return "none"
        return need(self.node.plugin.config).mig_strategy or "none"

    @derived
    def misfit(self) -> str | None:
        """Why the strategy cannot offer the layout, in a reader's words; None if it can.

        Source: k8s-device-plugin internal/rm/device_map.go, assertAllMigDevicesAreValid.
        """
        product = need(self.node.labels).get("nvidia.com/gpu.product", "")
        labelled = f"GFD says nvidia.com/gpu.product={product}" if product.endswith("-MIG-INVALID") else None
        layouts = self.layouts
        if is_not_asked(layouts) and labelled:
            return labelled
        on = [one for one in need(layouts) if one.is_on]
        empty = [one.gpu for one in on if not one.profiles]
        profiles = sorted({profile for one in on for profile in one.profiles})
        if empty:
            return f"{', '.join(empty)} has MIG on and no MIG device"
        if need(self.strategy) != "single":
            return None
        if on and len(on) < len(need(layouts)):
            return f"MIG is on on {len(on)} of {len(need(layouts))} GPUs"
        return f"NVML lists MIG devices of several profiles: {', '.join(profiles)}" if len(profiles) > 1 else None

    @derived
    def differences(self) -> tuple[str, ...]:
        """How resources and labels differ from NVML's MIG devices, in a reader's words; in order labels, resources.

        Resources are compared where the plugin serves, labels where GFD was told the same strategy as the plugin.
        """
        labels = need(self.node.labels)
        strategy = need(self.strategy)
        devices = Counter(profile for one in need(self.layouts) for profile in one.profiles)
        if need(self.misfit) is not None and strategy == "single":
            return ()  # SHR-002 says so
        named = {f"{_MIG_RESOURCE}{name.replace('+', '.')}": count for name, count in devices.items()}
        found = []
        if labels.get("nvidia.com/mig.strategy") == strategy:
            told = _labelled(labels) if strategy == "mixed" else _labelled_single(labels)
            real = named if strategy == "mixed" else _as_single(devices)
            if told != real:
                found.append(f"the labels say {_counted(told)}, NVML lists {_counted(real)}")
        if need(self.node.plugin.serving).resources:
            offered = self._offered(strategy)
            real = need(self.node.plugin.config).offered(
                named if strategy == "mixed" else {DEFAULT_RESOURCE: devices.total()}
            )
            if offered != real and (strategy == "mixed" or devices):
                found.append(f"it offers {_counted(offered)}, NVML's devices make {_counted(real)}")
        return tuple(found)

    @derived
    def labels_strategy(self) -> str | None:
        """The MIG strategy that GFD labels by, None where GFD has not labelled the node."""
        labels = need(self.node.labels)
        return labels.get("nvidia.com/mig.strategy", "none") if "nvidia.com/gpu.product" in labels else None

    def _offered(self, strategy: str) -> dict[str, int]:
        """Return what is offered of MIG devices: with strategy single everything, else the resources of profiles."""
        served = need(self.node.plugin.serving).resources
        offered = {name: count for name, count in need(self.node.plugin.offer).capacity.items() if name in served}
        return offered if strategy == "single" else {n: c for n, c in offered.items() if n.startswith(_MIG_RESOURCE)}

    @derived
    def undefined(self) -> str | None:
        """What says that the MIG manager does not know the layout that is asked for; None if it does."""
        name, known = need(self.asked), self.configurations
        if name is None or is_not_asked(known):
            return None
        listed = need(known)
        if listed is None or name in listed:
            return None
        close = sorted(listed)
        shown = ", ".join(f"'{one}'" for one in close[:_SHOWN])
        more = f" and {len(close) - _SHOWN} more" if len(close) > _SHOWN else ""
        return f"{self.configuration_name} has no layout '{name}'; it has {shown}{more}"

    @derived
    def other_than_asked(self) -> str | None:
        """How the layout differs from the one that was asked for, in a reader's words; None if it does not.

        Also None where the layout's meaning, or what NVML lists, was not asked for.
        """
        name = need(self.asked)
        if is_not_asked(self.layouts) or is_not_asked(self.configurations):
            return None
        known = need(self.configurations)
        if known is None or name is None or name not in known:
            return None
        wanted = self._wanted(known[name])
        if wanted is None:
            return None
        for place, one in enumerate(need(self.layouts)):
            wish = wanted.get(place)
            if wish is not None and (
                wish.is_on != one.is_on or Counter(one.profiles) != Counter(_positive(wish.devices))
            ):
                return f"'{name}' means {_spoken(wish)}; NVML lists {one}"
        return None

    def _wanted(self, wishes: tuple[Wish, ...]) -> dict[int, Wish] | None:
        """Return what is wanted of each GPU, by its place in order of address; None where that cannot be told."""
        gpus = [gpu for gpu in need(self.node.gpus) if gpu.identity.index is not None]
        ids = (
            {one.address: one.device for one in need(self.node.driver.pci_gpus)}
            if any(w.filters for w in wishes)
            else {}
        )
        found: dict[int, Wish] = {}
        for wish in wishes:
            for place, gpu in enumerate(gpus):
                if wish.places is not None and place not in wish.places:
                    continue
                if wish.filters:
                    device = ids.get(gpu.identity.address or "")
                    if device is None:
                        return None
                    if f"0x{device:04X}10DE" not in wish.filters:
                        continue
                found[place] = wish
        return found

    # --- what is switched off meanwhile ------------------------------------------------------------

    @derived
    def paused(self) -> tuple[str, ...]:
        """The deploy labels that are paused for a change, as `key=value`, in order."""
        labels = need(self.node.labels)
        return tuple(
            f"{key}={value}"
            for key, value in sorted(labels.items())
            if key.startswith(DEPLOY_PREFIX) and PAUSED.fullmatch(value)
        )

    @derived
    def change_under_way(self) -> str | None:
        """The change for which labels may be paused now, in a reader's words; None if there is none.

        The driver container pauses them itself while it starts, with the upgrade controller's label or without.
        """
        labels = need(self.node.labels)
        state, upgrade = labels.get(STATE_LABEL, ""), labels.get(_UPGRADE_LABEL, "")
        for paused in need(self.paused):
            if paused.endswith(PAUSED_FOR_MIG):
                if state in UNDER_WAY:
                    return f"{STATE_LABEL}={state}"
            elif upgrade not in _SETTLED:
                return f"{_UPGRADE_LABEL}={upgrade}"
            elif (driver := next((pod for pod in need(self.node.pods) if _is_starting_driver(pod)), None)) is not None:
                return f"the driver container {driver.namespace}/{driver.name} starts"
        return None


def kinds_that_hide_each_other(pod: "Pod") -> Reading[str | None]:
    """Return which container of a pod asks for several kinds of MIG devices and sees one of them, None if none does.

    Each resource sets the same variable, NVIDIA_VISIBLE_DEVICES, where the device plugin's strategy is envvar alone.
    Judged on the pod's node. Source: k8s-device-plugin internal/plugin/server.go (updateResponseForDeviceListEnvVar).
    """

    def derive() -> str | None:
        if sum(name.startswith(_MIG_RESOURCE) for name in need(pod.gpu_request)) < 2:  # noqa: PLR2004  several
            return None
        for container in need(pod.containers):
            listed = {**(container.resources.requests or {}), **(container.resources.limits or {})}
            kinds = sorted(name for name in listed if name.startswith(_MIG_RESOURCE))
            node = need(pod.reached_node) if len(kinds) > 1 and pod.node_name else None
            if node is not None and set(need(node.plugin.config).device_list_strategies) <= {"envvar"}:
                return f"container '{container.name}' asks for {' and '.join(kinds)}"
        return None

    return attempt(derive)


def _is_starting_driver(pod: "Pod") -> bool:
    return need(pod.component) is Component.DRIVER and not need(pod.is_ready) and not need(pod.is_finished)


def parse_attempt(text: str) -> Attempt:
    """Return what the MIG manager's log tells of its last change."""
    starts = list(_STARTS.finditer(text))
    start = starts[-1] if starts else None
    last = text[start.end() :] if start is not None else text
    stamps = _STAMP.findall(text)
    problem = None
    for line in last.splitlines():
        short = line[:_MAX_LINE]
        if not _COMPLAINS.search(short) or _NORMAL.search(short):
            continue
        said = _SAID.match(short)
        words = brief((said[1] if said else short).replace("\\n", " ").replace('\\"', '"'))
        if _CLIENT.search(words):
            problem = words
            break
        problem = problem or words or None
    return Attempt(
        config=start[1] if start is not None else None,
        is_over=_WAITS.search(last) is not None,
        last=_moment(stamps[-1]) if stamps else None,
        problem=problem,
        client=_CLIENT.search(last) is not None,
        pends=_PENDS.search(last) is not None,
    )


def _moment(text: str) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None


@functools.lru_cache(maxsize=16)
def parse_layouts(text: str) -> "Mapping[str, tuple[Wish, ...]] | None":
    """Return the layouts of mig-parted's configuration by name, None if the text is none."""
    if len(text) > _MAX_CHARS:
        return None
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    layouts = document.get("mig-configs") if isinstance(document, dict) else None
    if not isinstance(layouts, dict):
        return None
    found: dict[str, tuple[Wish, ...]] = {}
    for name, wishes in layouts.items():
        listed = [_wish(one) for one in wishes] if isinstance(wishes, list) else [None]
        if None in listed:
            return None
        found[str(name)] = tuple(one for one in listed if one is not None)
    return found


def _wish(entry: Any) -> Wish | None:  # noqa: ANN401  what YAML gives
    if not isinstance(entry, dict):
        return None
    filters, places, devices = entry.get("device-filter"), entry.get("devices"), entry.get("mig-devices") or {}
    if isinstance(filters, str):
        filters = [filters]
    if not isinstance(devices, dict) or not all(type(one) is int for one in devices.values()):
        return None
    if not (places == "all" or (isinstance(places, list) and all(type(one) is int for one in places))):
        return None
    return Wish(
        tuple(str(one).upper().replace("0X", "0x") for one in filters or () if one),
        None if places == "all" else tuple(places),
        entry.get("mig-enabled") is True,
        {str(name): count for name, count in devices.items()},
    )


def _labelled(labels: Mapping[str, str]) -> dict[str, int]:
    """Return how many devices of each MIG resource GFD's labels count (strategy mixed)."""
    found = {}
    for key, value in labels.items():
        if key.startswith(_MIG_RESOURCE) and key.endswith(".count") and value.isdigit() and int(value):
            found[key.removesuffix(".count")] = int(value)
    return found


def _labelled_single(labels: Mapping[str, str]) -> dict[str, int]:
    """Return how many devices of which profile GFD's labels count (strategy single)."""
    _, mark, profile = labels.get("nvidia.com/gpu.product", "").removesuffix("-SHARED").rpartition("-MIG-")
    count = labels.get("nvidia.com/gpu.count", "")
    return {profile: int(count)} if mark and count.isdigit() else {}


def _as_single(devices: Mapping[str, int]) -> dict[str, int]:
    """Return the devices with their profiles written as in a product's label: other characters dropped."""
    return {re.sub(r"[^A-Za-z0-9-_. ]", "", name): count for name, count in devices.items()}


def _counted(devices: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in sorted(devices.items())) or "none"


def _positive(devices: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in devices.items() if count}


def spoken(devices: Mapping[str, int]) -> str:
    """Return a number of MIG devices by profile in a reader's words."""
    return ", ".join(f"{count} x {name}" for name, count in sorted(devices.items()) if count) or "MIG on, no device"


def _spoken(wish: Wish) -> str:
    return spoken(wish.devices) if wish.is_on else "MIG off"


def _gap(kind: MissingKind, reason: str, source: str) -> Missing:
    return Missing(kind, reason, source)
