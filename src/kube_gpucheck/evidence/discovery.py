"""What Node Feature Discovery and GPU Feature Discovery were asked to say of the nodes, and what they said.

Judges nothing. Sources: k8s-device-plugin internal/lm and cmd/gpu-feature-discovery (0.13 to 0.20),
node-feature-discovery (0.8 to 0.20), upstream-facts §1.1, §1.5 and §2.
"""

import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kube_gpucheck.evidence import nvml, tables
from kube_gpucheck.evidence.documents import Container, NodeFeatureDocument
from kube_gpucheck.evidence.readings import GapError, attempt, derived, need
from kube_gpucheck.evidence.rollout import brief, one_line, restarting
from kube_gpucheck.evidence.scheduling import selection
from kube_gpucheck.evidence.stack import Component, kept_off, parse_version, version_of
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.daemonset import DaemonSet
    from kube_gpucheck.evidence.host import Host
    from kube_gpucheck.evidence.node import Node
    from kube_gpucheck.evidence.pod import Pod

NODE_FEATURES: Final = "nodefeatures.nfd.k8s-sigs.io"
DISCOVERY_LABEL: Final = re.compile(r"(?:feature\.node\.kubernetes\.io|nvidia\.com)/.+")
"""Labels that NFD, GFD or, because of theirs, the GPU Operator sets."""
PCI_LABEL: Final = re.compile(r"feature\.node\.kubernetes\.io/pci-(?:[0-9a-f]{4}_)?10de(?:_[0-9a-f]+)*\.present")
"""NFD's label of a PCI function of NVIDIA, in whichever form it was told to write."""

_NODE_NAME_LABEL: Final = "nfd.node.kubernetes.io/node-name"
_GFD_OBJECT: Final = "nvidia-features-for-"
"""Source: k8s-device-plugin internal/lm/output.go, nodeFeatureVendorPrefix."""
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_PRINTED: Final = re.compile(r'"useNodeFeatureAPI":[ \t]*(true|false|null)')
_ABSENT: Final = re.compile(r"could not find the requested resource|no matches for kind")
_REFUSED: Final = re.compile(r"forbidden|cannot (?:get|list|watch|create|update|patch|delete) resource")

_MEMORY: Final = "nvidia.com/gpu.memory"
_MEMORY_LEFT_OUT_SINCE: Final = (0, 18)
"""From here on `gpu.memory` is left out where NVML tells no memory (unified memory)."""
_MIG_RESOURCE: Final = re.compile(r"nvidia\.com/mig-[0-9a-z.+-]+?(?:\.shared)?")
_MIB: Final = 2**20
_MEMORY_SLACK_MIB: Final = 1
_NOT_SUPPORTED: Final = 3
_OBJECTS_BY_DEFAULT: Final = (0, 19, 0)
_NFD_OBJECTS_BY_DEFAULT: Final = (0, 16, 0)
_NFD_OBJECTS_ONLY: Final = (0, 17, 0)


class GfdLabels(msgspec.Struct, frozen=True):
    """Which of GFD's labels a node lacks.

    `version` of that GFD, None if its image does not tell. `missing` and `empty` are label keys, in order.
    """

    daemonset: str
    version: tuple[int, int, int] | None
    wanted: tuple[str, ...]
    missing: tuple[str, ...]
    empty: tuple[str, ...]


class Refusal(msgspec.Struct, frozen=True):
    """What the API answered a publisher of NodeFeature objects. `is_absent`: the type is not there; else forbidden."""

    pod: str
    words: str
    is_absent: bool


class Discovery:
    """Feature discovery in one cluster."""

    def __init__(self, cluster: "Cluster") -> None:
        """Keep the cluster."""
        self.cluster = cluster

    @derived
    def user(self) -> str | None:
        """One DaemonSet or pod that selects nodes by a label of discovery, None if none does.

        Pods are looked at only where no DaemonSet does.
        """
        for daemonset in need(self.cluster.daemonsets):
            for key in selection(need(daemonset.object).spec.template.spec):
                if DISCOVERY_LABEL.fullmatch(key):
                    return f"DaemonSet {daemonset.subject} by {key}"
        for pod in need(self.cluster.readable_pods):
            for key in selection(need(pod.object).spec):
                if DISCOVERY_LABEL.fullmatch(key):
                    return f"pod {pod.namespace}/{pod.name} by {key}"
        return None

    @derived
    def node_features(self) -> tuple[NodeFeatureDocument, ...] | None:
        """All NodeFeature objects, None where the API does not serve them."""
        items = need(self.cluster.items(NODE_FEATURES))
        if items is None:
            return None
        if items.bad:
            bad = items.bad[0]
            reason = f"NodeFeature '{bad.namespace}/{bad.name}': {bad.reason}"
            raise GapError(Missing(MissingKind.UNPARSABLE, reason, f"cluster/{NODE_FEATURES}.json"))
        return items.good

    @derived
    def _by_node(self) -> dict[str, tuple[NodeFeatureDocument, ...]]:
        found: dict[str, list[NodeFeatureDocument]] = {}
        for one in need(self.node_features) or ():
            found.setdefault((one.metadata.labels or {}).get(_NODE_NAME_LABEL, ""), []).append(one)
        return {name: tuple(objects) for name, objects in found.items()}

    def published(self, daemonset: "DaemonSet", node: "Node") -> Reading[NodeFeatureDocument | None]:
        """Return the NodeFeature that a GFD or NFD worker wrote for a node, None if there is none."""

        def derive() -> NodeFeatureDocument | None:
            name = f"{_GFD_OBJECT}{node.name}" if daemonset.component is Component.GFD else node.name
            for one in need(self._by_node).get(node.name, ()):
                owners = {owner.uid for owner in one.metadata.owner_references}
                if one.metadata.name == name or need(daemonset.object).metadata.uid in owners:
                    return one
            return None

        return attempt(derive)

    @derived
    def publishers(self) -> "tuple[DaemonSet, ...]":
        """The GFD and NFD worker DaemonSets that publish by NodeFeature objects."""
        stack = self.cluster.stack
        installed = (*need(stack.feature_discoveries), *need(stack.nfd_workers))
        return tuple(one for one in installed if need(publishes_by_object(one)))

    def pod_on(self, daemonset: "DaemonSet", node: "Node") -> "Reading[Pod | None]":
        """Return a DaemonSet's pod on a node that is not being deleted, None if there is none."""

        def derive() -> "Pod | None":
            uid = need(daemonset.object).metadata.uid
            for pod in need(node.pods):
                if uid in need(pod.outline).controllers and not need(pod.is_leaving):
                    return pod
            return None

        return attempt(derive)

    def refusal(self, daemonset: "DaemonSet", pod: "Pod") -> Reading[Refusal | None]:
        """Return what the API answered when a pod published NodeFeatures, None if it complained of nothing.

        From the log of a container that has run: of this run, else of the one before.
        """

        def derive() -> Refusal | None:
            name = need(daemonset.main_container).name
            return _refusal_of(pod, name) if _has_run(pod, name) else None

        return attempt(derive)

    @derived
    def refusals(self) -> tuple[Refusal, ...]:
        """What the API answered the publishers whose log complains of it, in order of DaemonSet and pod."""
        found = (
            need(self.refusal(daemonset, pod)) for daemonset in need(self.publishers) for pod in need(daemonset.pods)
        )
        return tuple(one for one in found if one is not None)

    @derived
    def nfd_versions(self) -> tuple[tuple[str, tuple[int, int, int]], ...]:
        """Each NFD master and worker with its version, where its image tells one; in order of name."""
        workers = [need(worker.object) for worker in need(self.cluster.stack.nfd_workers)]
        templates = [(one.metadata, one.spec.template.spec) for one in workers]
        if workers:
            templates += [(one.metadata, one.spec.template.spec) for one in need(self.cluster.stack.nfd_masters)]
        found: list[tuple[str, tuple[int, int, int]]] = []
        for metadata, spec in templates:
            version = version_of(spec.containers[0].image)
            if version is not None:
                found.append((f"{metadata.namespace}/{metadata.name}", version))
        return tuple(sorted(found))

    def labels_of(self, node: "Node") -> Reading[GfdLabels | None]:
        """Return which of GFD's labels a node lacks, None where no GFD is meant to label it.

        Missing where GFD has published what the node lacks: NFD's master has not yet copied it.
        """
        return attempt(lambda: self._labels_of(node))

    def _labels_of(self, node: "Node") -> GfdLabels | None:
        chosen = self._gfd_for(node)
        if chosen is None:
            return None
        labels = need(node.labels)
        container = need(chosen.main_container)
        version = version_of(container.image) or chart_version(chosen)
        wanted = (*expected_labels(version), *_mig_labels(container, node))
        missing = tuple(key for key in wanted if key not in labels)
        empty = tuple(key for key in _filled() if labels.get(key) == "")
        by_object: bool = need(publishes_by_object(chosen)) if missing else False
        if by_object:
            self._stop_if_published(chosen, node, missing)
        return GfdLabels(str(chosen.subject), version, wanted, missing, empty)

    def _stop_if_published(self, gfd: "DaemonSet", node: "Node", missing: tuple[str, ...]) -> None:
        published = self.published(gfd, node)
        if isinstance(published, Missing) and published.kind is MissingKind.NOT_ASKED:
            return
        document: NodeFeatureDocument | None = need(published)
        said = (document.spec.labels or {}) if document else {}
        if document is not None and all(key in said for key in missing):
            reason = (
                f"GFD published {len(said)} labels in its NodeFeature '{document.metadata.name}', "
                f"and {node.name} does not carry {len(missing)} of them yet"
            )
            raise GapError(Missing(MissingKind.ERROR, reason, f"cluster/{NODE_FEATURES}.json"))

    def _gfd_for(self, node: "Node") -> "DaemonSet | None":
        """Return the GFD that labels a node, the first one where none may run on it; None where none is meant to."""
        installed = need(self.cluster.stack.feature_discoveries)
        for one in installed:
            if need(one.rejection(node)) is None:
                return one
        for one in installed:
            why = need(one.selects(node))
            if why is None or kept_off(need(node.labels), why.keys) is None:
                return one
        return None

    def disagreements(self, node: "Node") -> Reading[tuple[str, ...]]:
        """Return what a node's GFD labels say otherwise than NVML, one line each, in order of label."""
        return attempt(lambda: tuple(_disagreements(need(node.labels), node.host)))


@functools.lru_cache(maxsize=64)
def expected_labels(version: tuple[int, int, int] | None) -> tuple[str, ...]:
    """Return the labels that a GFD of this version writes on every node with a GPU; if unknown those of all."""
    found = [one for one in tables.labels() if one.writer == "gfd" and one.where == "every" and one.key != _MEMORY]
    keys = [one.key for one in sorted(found, key=_since) if _since(one) <= (version or (0, 0, 0))]
    if version is not None and version[:2] < _MEMORY_LEFT_OUT_SINCE:
        keys.append(_MEMORY)
    return tuple(keys)


@functools.cache
def _filled() -> tuple[str, ...]:
    return tuple(one.key for one in tables.labels() if one.filled)


def _since(label: tables.Label) -> tuple[int, int, int]:
    return parse_version(label.since) or (0, 0, 0)


def product_label(name: str) -> str:
    """Return a product's name as GFD writes it: other characters dropped, blanks as one hyphen.

    Source: k8s-device-plugin internal/lm/resource.go, sanitise.
    """
    return "-".join(re.sub(r"[^A-Za-z0-9-_. ]", "", name).split())


def publishes_by_object(daemonset: "DaemonSet") -> Reading[bool]:
    """Return whether a GFD or an NFD worker publishes by NodeFeature objects: by option, by version, by its log."""
    return attempt(lambda: _publishes(daemonset))


def _publishes(daemonset: "DaemonSet") -> bool:
    container = need(daemonset.main_container)
    version = version_of(container.image) or chart_version(daemonset)
    if daemonset.component is Component.NFD_WORKER:
        return _worker_publishes(container, version, str(daemonset.subject))
    told = _option(container, "--use-node-feature-api", ("GFD_USE_NODE_FEATURE_API", "USE_NODE_FEATURE_API"))
    if told is not None:
        return told in _TRUE
    by_file = _option(container, "--config-file", ("GFD_CONFIG_FILE", "CONFIG_FILE"))
    if version is not None and not by_file:
        return version >= _OBJECTS_BY_DEFAULT
    for pod in need(daemonset.pods):
        log = pod.log(container.name)
        if _has_run(pod, container.name) and not nvml.is_not_asked(log):
            printed = _PRINTED.search(need(log))
            if printed:
                return printed[1] == "true"
    if version is not None:
        return version >= _OBJECTS_BY_DEFAULT
    reason = f"the image of {daemonset.subject} tells no version, and no log says whether it writes NodeFeature objects"
    raise GapError(Missing(MissingKind.UNPARSABLE, reason, "cluster/daemonsets.apps.json"))


def _worker_publishes(container: Container, version: tuple[int, int, int] | None, name: str) -> bool:
    words = " ".join((*(container.command or ()), *(container.args or ())))
    if re.search(r"NodeFeatureAPI=false|-enable-nodefeature-api=false", words):
        return version is not None and version >= _NFD_OBJECTS_ONLY
    if re.search(r"NodeFeatureAPI=true|-enable-nodefeature-api", words):
        return True
    if version is None:
        reason = f"the image of {name} tells no version, so whether it writes NodeFeature objects is not known"
        raise GapError(Missing(MissingKind.UNPARSABLE, reason, "cluster/daemonsets.apps.json"))
    return version >= _NFD_OBJECTS_BY_DEFAULT


def _option(container: Container, flag: str, names: tuple[str, ...]) -> str | None:
    """Return an option's value: the command line's (a bare flag is 'true'), else the environment's; None if not set."""
    words = [*(container.command or ()), *(container.args or ())]
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == flag:
            follows = words[place + 1] if place + 1 < len(words) else ""
            return value if equals else follows if follows and not follows.startswith("-") else "true"
    for variable in names:
        for one in container.env or ():
            if one.name == variable and one.value:
                return one.value
    return None


def chart_version(daemonset: "DaemonSet") -> tuple[int, int, int] | None:
    """Return the version that the chart's label tells, for images named by digest; None if there is none."""
    return parse_version((need(daemonset.object).metadata.labels or {}).get("app.kubernetes.io/version", ""))


def _mig_labels(container: Container, node: "Node") -> tuple[str, ...]:
    """Return the labels that the MIG strategy adds: its name, and with `mixed` those of each profile on offer."""
    strategy = _option(container, "--mig-strategy", ("GFD_MIG_STRATEGY", "MIG_STRATEGY"))
    if strategy in {None, "none"}:
        return ()
    keys = ["nvidia.com/mig.strategy"]
    if strategy == "mixed":
        offered = need(node.allocatable)
        profiles = (name.removesuffix(".shared") for name, count in sorted(offered.items()) if count)
        keys += [
            f"{name}.{part}" for name in profiles if _MIG_RESOURCE.fullmatch(name) for part in ("count", "product")
        ]
    return tuple(keys)


def _has_run(pod: "Pod", container: str) -> bool:
    if need(pod.is_ready):
        return True  # without a look at its statuses: thousands are
    for status in need(pod.statuses):
        if status.name == container:
            now, before = status.state, status.last_state
            return bool(now.running or now.terminated or before.terminated or status.restart_count)
    return False


def does_well(pod: "Pod") -> Reading[bool]:
    """Return whether a pod is Ready, and does not restart again and again."""
    return attempt(lambda: need(pod.is_ready) and not restarting(pod))


def _refusal_of(pod: "Pod", container: str) -> Refusal | None:
    now, before = pod.log(container), pod.log(container, previous=True)
    for log in (now, before):
        text = log.value if isinstance(log, Seen) else ""
        for line in reversed(text.splitlines()):
            if "nodefeature" not in line.lower():
                continue
            if _ABSENT.search(line) or _REFUSED.search(line):
                return Refusal(pod.name, brief(one_line(line) or ""), bool(_ABSENT.search(line)))
    need(now)
    return None


def _disagreements(labels: Mapping[str, str], host: "Host") -> list[str]:
    found: list[str] = []
    driver = _text(host, "nvmlSystemGetDriverVersion", "")
    labelled = _joined(
        labels, "cuda.driver-version.full", ("cuda.driver.major", "cuda.driver.minor", "cuda.driver.rev")
    )
    if labelled is not None and labelled != driver:
        found.append(f"labels say driver {labelled}, NVML {driver}")
    cuda = _number(host, "nvmlSystemGetCudaDriverVersion", "")
    spoken = f"{cuda // 1000}.{cuda % 1000 // 10}"
    labelled = _joined(labels, "cuda.runtime-version.full", ("cuda.runtime.major", "cuda.runtime.minor"))
    if labelled is not None and labelled != spoken:
        found.append(f"labels say CUDA {labelled}, NVML {spoken}")
    return found + _gpu_disagreements(labels, host)


def _gpu_disagreements(labels: Mapping[str, str], host: "Host") -> list[str]:
    """Compare what the labels say of the GPUs. They describe one product, the last, where there are several."""
    found: list[str] = []
    count = _number(host, "nvmlDeviceGetCount", "")
    names = {index: _text(host, "nvmlDeviceGetName", str(index)) for index in range(count)}
    product = labels.get("nvidia.com/gpu.product", "")
    base, mig, _ = product.removesuffix("-SHARED").partition("-MIG-")
    alike = [index for index, name in names.items() if base in {product_label(name), name.replace(" ", "-")}]
    if not alike:
        listed = ", ".join(dict.fromkeys(names.values())) or "no GPU"
        return [f"label nvidia.com/gpu.product={product}, NVML lists {listed}"]
    if not mig:
        if labels.get("nvidia.com/gpu.count") != str(len(alike)):
            found.append(
                f"label nvidia.com/gpu.count={labels.get('nvidia.com/gpu.count')}, NVML lists {len(alike)} {base}"
            )
        found += _memory_disagreement(labels, host, alike)
    major, minor = labels.get("nvidia.com/gpu.compute.major"), labels.get("nvidia.com/gpu.compute.minor")
    capabilities = {_capability(host, index) for index in alike}
    if major is not None and minor is not None and f"{major}.{minor}" not in capabilities:
        found.append(f"labels say compute capability {major}.{minor}, NVML {', '.join(sorted(capabilities))}")
    return found


def _memory_disagreement(labels: Mapping[str, str], host: "Host", alike: list[int]) -> list[str]:
    label = labels.get("nvidia.com/gpu.memory")
    if label is None:
        return []
    sizes = [size for size in (_memory_mib(host, index) for index in alike) if size is not None]
    if sizes and not any(label.isdigit() and abs(int(label) - size) <= _MEMORY_SLACK_MIB for size in sizes):
        seen = ", ".join(str(size) for size in sorted(set(sizes)))
        return [f"label nvidia.com/gpu.memory={label}, NVML {seen} MiB"]
    return []


def _joined(labels: Mapping[str, str], whole: str, parts: tuple[str, ...]) -> str | None:
    """Return a version from one label, else put together from several; None if there is none."""
    full = labels.get(f"nvidia.com/{whole}")
    if full is not None:
        return full
    values = [labels.get(f"nvidia.com/{part}", "") for part in parts]
    return ".".join(value for value in values if value) or None


def _answer(host: "Host", call: str, arguments: str) -> Any:  # noqa: ANN401  NVML's own value, of whichever shape
    answer = need(nvml.query(host, call, arguments))
    if answer.code != 0:
        reason = f"{call}({arguments}) on {host.name} answered code {answer.code}"
        raise GapError(Missing(MissingKind.ERROR, reason, f"nodes/{host.name}/host.json#nvml:{call}({arguments})"))
    return answer.value


def _text(host: "Host", call: str, arguments: str) -> str:
    value = _answer(host, call, arguments)
    if not isinstance(value, str):
        raise _malformed(host, call, arguments, value)
    return value


def _number(host: "Host", call: str, arguments: str) -> int:
    value = _answer(host, call, arguments)
    if type(value) is not int or value < 0:
        raise _malformed(host, call, arguments, value)
    return value


def _capability(host: "Host", index: int) -> str:
    value = _answer(host, "nvmlDeviceGetCudaComputeCapability", str(index))
    pair = [value.get("major"), value.get("minor")] if isinstance(value, dict) else value
    if not (isinstance(pair, list) and len(pair) == 2 and all(type(one) is int for one in pair)):  # noqa: PLR2004  major, minor
        raise _malformed(host, "nvmlDeviceGetCudaComputeCapability", str(index), value)
    return f"{pair[0]}.{pair[1]}"


def _memory_mib(host: "Host", index: int) -> int | None:
    """Return a GPU's memory in MiB, rounded down; None where NVML does not support the query."""
    answer = need(nvml.query(host, "nvmlDeviceGetMemoryInfo", str(index)))
    if answer.code == _NOT_SUPPORTED:
        return None
    value = _answer(host, "nvmlDeviceGetMemoryInfo", str(index))
    total = value.get("total") if isinstance(value, dict) else None
    if type(total) is not int:
        raise _malformed(host, "nvmlDeviceGetMemoryInfo", str(index), value)
    return total // _MIB


def _malformed(host: "Host", call: str, arguments: str, value: object) -> GapError:
    reason = f"{call}({arguments}) on {host.name} has the value {value!r:.60}"
    return GapError(Missing(MissingKind.UNPARSABLE, reason, f"nodes/{host.name}/host.json#nvml:{call}({arguments})"))
