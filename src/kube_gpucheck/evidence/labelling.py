"""Whether the labels of the GPU stack are of today: their age, their subject, what they imply, and who selects by them.

Judges nothing. Sources: `data/labels.yaml`; k8s-device-plugin 0.13 to 0.20, internal/lm/timestamp.go (the label
nvidia.com/gfd.timestamp is the time at which GFD began, and stays while it runs) and internal/lm/resource.go.
"""

import datetime
import functools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.discovery import PCI_LABEL
from kube_gpucheck.evidence.documents import PodSpec, Requirement
from kube_gpucheck.evidence.fleet import products
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.readings import derived, need
from kube_gpucheck.evidence.scheduling import selection
from kube_gpucheck.evidence.stack import DEPLOY_PREFIX, Component, recognise
from kube_gpucheck.evidence.tables import label_of

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.node import Node
    from kube_gpucheck.evidence.pod import Pod

TIMESTAMP: Final = "nvidia.com/gfd.timestamp"
_GPU_KEY: Final = re.compile(r"nvidia\.com/(?:gpu|cuda|mig|mps|vgpu)[.-].{1,200}")
_NVIDIA_GPU: Final = re.compile(r"nvidia\.com/gpu\.(?:present|product|count|family|memory)")
_NOTHING: Final = frozenset({"", "0", "false"})
_MIG_COUNT: Final = re.compile(r"(nvidia\.com/mig-[0-9a-z.+-]+)\.count")
_ONE_DEVICE: Final = frozenset({"wsl", "tegra"})
"""Platforms on which the device plugin offers one device whatever the number of GPUs (upstream-facts §1.3)."""


class Age(msgspec.Struct, frozen=True):
    """When GFD began to label a node, and what came after it. `later`: in a reader's words; `at`: when that was."""

    labelled: datetime.datetime
    later: str = ""
    at: datetime.datetime | None = None


class Labelling:
    """The labels of the GPU stack on one node."""

    def __init__(self, node: "Node") -> None:
        """Keep the node."""
        self.node = node

    # --- age ---------------------------------------------------------------------------------------

    @derived
    def labelled_at(self) -> datetime.datetime | None:
        """When the GFD that wrote the labels began, None where it was told to write no time, or wrote nothing.

        Source: the node's label nvidia.com/gfd.timestamp, seconds since 1970.
        """
        told = need(self.node.labels).get(TIMESTAMP, "")
        if not re.fullmatch(r"\d{1,11}", told):
            return None
        return datetime.datetime.fromtimestamp(int(told), tz=datetime.timezone.utc)

    @derived
    def gfd_pods(self) -> "tuple[Pod, ...]":
        """GFD's pods on the node, those that have ended among them (GFD may run once); none that is being deleted."""
        return tuple(
            pod for pod in need(self.node.pods) if need(pod.component) is Component.GFD and not need(pod.is_leaving)
        )

    @derived
    def age(self) -> Age | None:
        """When GFD began to label, and what began after that; None without such a label.

        Looked at: GFD's container on the node; where none is Ready, the node's boot, if the host was asked for it.
        """
        labelled = need(self.labelled_at)
        if labelled is None:
            return None
        running = [pod for pod in need(self.gfd_pods) if need(pod.is_ready)]
        for pod in running:
            began = need(pod.outline).began
            if began is not None and labelled < began:
                return Age(labelled, f"GFD's container in {pod.namespace}/{pod.name} began", began)
        if not running and not is_not_asked(self.node.driver.boot_time):
            booted = need(self.node.driver.boot_time)
            if labelled < booted:
                return Age(labelled, "the node booted", booted)
        return Age(labelled)

    @derived
    def is_abandoned(self) -> bool:
        """Whether GFD labelled the node once, and nothing is installed any more that would do so again."""
        if need(self.labelled_at) is None:
            return False
        return not need(self.node.cluster.stack.feature_discoveries) and not need(self.gfd_pods)

    # --- what they are about -----------------------------------------------------------------------

    @derived
    def of_a_gpu(self) -> tuple[str, ...]:
        """The labels, as `key=value`, that say that the node has an NVIDIA GPU; in order, deploy labels apart."""
        labels = need(self.node.labels)
        return tuple(sorted(f"{key}={value}" for key, value in labels.items() if _tells(key) and value not in _NOTHING))

    @derived
    def gpu_is_there(self) -> str | None:
        """What shows that the node has an NVIDIA GPU, None if what was read shows that it has none.

        The PCI bus and NVML, where the host was asked; else what is allocatable, and NFD's labels where its worker is
        Ready on the node and labels PCI functions. Missing where none of these decides.
        """
        gpus = self.node.gpus
        if not is_not_asked(gpus):
            found = need(gpus)
            return f"GPU {found[0].name}" if found else None
        offered = [name for name, count in need(self.node.allocatable).items() if count]
        if offered:
            return f"{offered[0]} is allocatable"
        labels = need(self.node.labels)
        pci = [key for key in labels if key.startswith("feature.node.kubernetes.io/pci-")]
        if pci and self._is_labelled_by_nfd():
            mine = next((key for key in pci if PCI_LABEL.fullmatch(key)), None)
            return None if mine is None else f"label {mine}"
        need(gpus)
        return None

    def _is_labelled_by_nfd(self) -> bool:
        return any(need(pod.component) is Component.NFD_WORKER and need(pod.is_ready) for pod in need(self.node.pods))

    # --- what they imply ---------------------------------------------------------------------------

    @derived
    def implied(self) -> dict[str, int] | None:
        """What the labels make the node offer, by what is counted; None where they do not tell.

        Keys are MIG resources, and `GPUs` for everything else. Not told: whole GPUs beside MIG devices, for GFD counts
        all GPUs of a product; several products, for it counts the last one.
        """
        labels = need(self.node.labels)
        count, replicas = labels.get("nvidia.com/gpu.count", ""), labels.get("nvidia.com/gpu.replicas", "")
        if not (count.isdigit() and replicas.isdigit()):
            return None
        found = {}
        for key, value in labels.items():
            mig = _MIG_COUNT.fullmatch(key)
            if mig is not None and value.isdigit():
                shares = labels.get(f"{mig[1]}.replicas", "1")
                found[mig[1]] = int(value) * (int(shares) if shares.isdigit() else 1)
        if found and labels.get("nvidia.com/mig.strategy") == "mixed":
            return found
        return {WHOLE: int(count) * int(replicas)} if replicas != "0" else None

    @derived
    def offered(self) -> dict[str, int]:
        """What the node offers of what is served, counted in the same way as `implied`, and by its labels' strategy."""
        served = need(self.node.plugin.serving).resources
        capacity = {name: count for name, count in need(self.node.plugin.offer).capacity.items() if name in served}
        implied = need(self.implied)
        if implied is None or WHOLE in implied:
            return {WHOLE: sum(count for name, count in capacity.items() if not name.startswith("nvidia.com/mig-"))}
        found: dict[str, int] = {}
        for name, count in capacity.items():
            if name.startswith("nvidia.com/mig-"):
                key = name.removesuffix(".shared")
                found[key] = found.get(key, 0) + count
        return found

    @derived
    def counts_one_product(self) -> bool:
        """Whether the GPUs of the node are of one product, so that GFD's count is all of them."""
        return len(need(products(self.node))) <= 1

    @derived
    def offers_one_device(self) -> bool:
        """Whether the device plugin offers one device here whatever the number of GPUs (WSL2, Tegra)."""
        return any(log.platform in _ONE_DEVICE for _, log in need(self.node.plugin.logs))


WHOLE: Final = "GPUs"


@functools.lru_cache(maxsize=4096)
def _tells(key: str) -> bool:
    return _NVIDIA_GPU.fullmatch(key) is not None or PCI_LABEL.fullmatch(key) is not None


class Selector(msgspec.Struct, frozen=True):
    """A workload that selects nodes by a GPU label. `wanted`: what it asks for. `there`: what nodes have."""

    workload: str
    key: str
    wanted: str = ""
    there: str = ""


class Selectors:
    """The selectors on GPU labels that are in use outside the GPU stack, worked out once for the cluster."""

    def __init__(self, cluster: "Cluster") -> None:
        """Keep the cluster."""
        self.cluster = cluster

    @derived
    def in_use(self) -> tuple[Selector, ...]:
        """Every workload that selects by a GPU label, once for each key, in order of workload."""
        return tuple(
            Selector(workload, key) for workload, spec in self._specs() for key in selection(spec) if _is_gpu_label(key)
        )

    @derived
    def unmatched(self) -> tuple[Selector, ...]:
        """Those whose label no node has, in order of workload.

        Of alternatives in an affinity one is enough. That one node has all of them is not asked: PLG-008 tells of pods.
        """
        found = []
        for workload, spec in self._specs():
            lacking = self._lacking(spec)
            if lacking is not None:
                found.append(Selector(workload, *lacking))
        return tuple(found)

    @derived
    def deprecated(self) -> tuple[tuple[Selector, str], ...]:
        """Those by a key that has a successor, with that."""
        found = []
        for one in need(self.in_use):
            known = label_of(one.key)
            if known is not None and known.instead:
                found.append((one, known.instead))
        return tuple(found)

    @derived
    def _values(self) -> Mapping[str, frozenset[str]]:
        """The values of each GPU label among all nodes."""
        found: dict[str, set[str]] = defaultdict(set)
        for node in need(self.cluster.nodes):
            if is_not_asked(node.object):
                continue
            for key, value in need(node.labels).items():
                if _is_gpu_label(key):
                    found[key].add(value)
        return {key: frozenset(values) for key, values in found.items()}

    def _specs(self) -> Iterator[tuple[str, PodSpec]]:
        """Yield workloads outside the GPU stack with their pods' specification: those that PLG-008 does not judge.

        DaemonSets; Deployments and waiting pods that ask for no GPU.
        """
        for daemonset in need(self.cluster.daemonsets):
            if daemonset.component is None:
                yield f"DaemonSet {daemonset.subject}", need(daemonset.object).spec.template.spec
        for deployment in need(self.cluster.objects("deployments.apps")):
            spec = deployment.spec.template.spec
            if deployment.spec.replicas and recognise(spec) is None and not _asks(spec):
                yield f"Deployment {deployment.metadata.namespace}/{deployment.metadata.name}", spec
        for pod in need(self.cluster.readable_pods):
            if pod.node_name is None and not need(pod.gpu_request) and not need(pod.is_finished):
                yield f"pod {pod.namespace}/{pod.name}", need(pod.object).spec

    def _lacking(self, spec: PodSpec) -> tuple[str, str, str] | None:
        """Return the first key by which no node is found, what is wanted of it, and what there is; None if none is."""
        for key, value in (spec.node_selector or {}).items():
            one = Requirement(key, "In", (value,))
            if _is_gpu_label(key) and not self._is_met(one):
                return self._told(one)
        affinity = spec.affinity.node_affinity if spec.affinity else None
        required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
        first = None
        for term in required.node_selector_terms if required else ():
            bad = [one for one in term.match_expressions or () if _is_gpu_label(one.key) and not self._is_met(one)]
            if not bad:
                return None
            first = first or bad[0]
        return None if first is None else self._told(first)

    def _told(self, one: Requirement) -> tuple[str, str, str]:
        values = need(self._values).get(one.key, frozenset())
        wanted = one.key if one.operator == "Exists" else f"{one.key} {one.operator} {', '.join(one.values or ())}"
        if one.operator == "In" and len(one.values or ()) == 1:
            wanted = f"{one.key}={(one.values or ('',))[0]}"
        shown = ", ".join(sorted(values)[:_SHOWN]) + (", …" if len(values) > _SHOWN else "")
        return one.key, wanted, f"nodes have {shown or 'an empty value'}" if values else "no node has that label"

    def _is_met(self, one: Requirement) -> bool:
        """Tell whether some node's label may meet a requirement; those for what is absent, or compared, always may."""
        values = need(self._values).get(one.key)
        if one.operator == "In":
            return values is not None and not values.isdisjoint(one.values or ())
        return one.operator != "Exists" or values is not None


_SHOWN: Final = 5


@functools.lru_cache(maxsize=4096)
def _is_gpu_label(key: str) -> bool:
    """Tell whether a key is a label of GPUs that somebody outside the GPU stack may select by."""
    return not key.startswith(DEPLOY_PREFIX) and (
        _GPU_KEY.fullmatch(key) is not None or PCI_LABEL.fullmatch(key) is not None
    )


def _asks(spec: PodSpec) -> bool:
    return any(
        name.startswith("nvidia.com/")
        for one in spec.containers
        for listed in (one.resources.requests, one.resources.limits)
        for name in listed or {}
    )
