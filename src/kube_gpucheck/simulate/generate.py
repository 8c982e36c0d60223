"""Generates a realistic cluster of any size as a bundle, streamed: memory does not grow with the nodes.

Equal specifications give equal bundles. What the nodes are is decided in `generated/plan.py`, what can
be broken in `generated/faults.py`; here they are only written down.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from kube_gpucheck.errors import BundleError, ScenarioError
from kube_gpucheck.evidence.bundle import (
    BUNDLE_FORMAT,
    Asked,
    Bundle,
    DiscoveryRecord,
    GroupRecord,
    Manifest,
    RunRecord,
)
from kube_gpucheck.model import MissingEvidence, MissingKind
from kube_gpucheck.simulate.generated import nodes, pods
from kube_gpucheck.simulate.generated.faults import EXPORTER, FAULTS, GFD, HEALTHY, STACK, WORKER, Fault
from kube_gpucheck.simulate.generated.hosts import HostTemplate
from kube_gpucheck.simulate.generated.plan import (
    DaemonSetRecipe,
    GeneratedCluster,
    NodePlan,
    Plans,
    stack,
)

Json = dict[str, Any]
NOT_REAL: Final = ("everything: a program made this cluster up",)
_HEAD: Final = b'{"apiVersion":"v1","kind":"List","metadata":{},"items":[\n'
_BUFFER: Final = 2**20
MAX_NODES_IN_MEMORY: Final = 500
"""A node, its pods and features are some 75 KB."""


class _Sink(Protocol):
    """Where a bundle's files go."""

    def put(self, path: str, chunks: Iterable[bytes]) -> None:
        """Keep a file. Paths are relative, with forward slashes."""

    def put_again(self, path: str, content: bytes) -> None:
        """Keep a file whose content many others have."""


class _Folder:
    """Writes each file as it comes, and remembers its digest."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._same: dict[bytes, str] = {}
        self.digests: dict[str, str] = {}

    def put(self, path: str, chunks: Iterable[bytes]) -> None:
        target = self._root / path
        digest = hashlib.sha256()
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb", buffering=_BUFFER) as stream:
            for chunk in chunks:
                digest.update(chunk)
                stream.write(chunk)
        self.digests[path] = digest.hexdigest()

    def put_again(self, path: str, content: bytes) -> None:
        first = self._same.setdefault(content, path)
        if first == path:
            self.put(path, (content,))
            return
        try:
            (self._root / path).hardlink_to(self._root / first)
        except OSError:  # too many links, or a file system without them
            self._same[content] = path
            self.put(path, (content,))
            return
        self.digests[path] = self.digests[first]


class _Memory:
    """Holds each file."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def put(self, path: str, chunks: Iterable[bytes]) -> None:
        self.files[path] = b"".join(chunks)

    def put_again(self, path: str, content: bytes) -> None:
        self.files[path] = content


def _lines(items: Iterable[Json]) -> Iterator[bytes]:
    """Yield a list's lines: the head, an item each, the tail."""
    encode = msgspec.json.encode
    yield _HEAD
    before = b""
    for item in items:
        yield before + encode(item)
        before = b",\n"
    yield (b"\n" if before else b"") + b"]}\n"


class _Writer:
    """Writes one generated cluster."""

    def __init__(self, sink: _Sink, spec: GeneratedCluster, host: HostTemplate | None) -> None:
        self._sink = sink
        self._spec = spec
        self._host = host
        self._plans = Plans(spec, host.machines if host else None)
        self._counts = {one.name: pods.Counts() for one in stack().daemonsets}
        self._replicas: dict[str, int] = {}
        self._events: list[Json] = []
        self._logs: list[str] = []
        self._missing: list[MissingEvidence] = []
        self._endpoints: list[Json] = []

    def write(self) -> Manifest:
        """Write every file but bundle.json, and return what is to stand in it, but for the digests."""
        lists: dict[str, Iterable[Json]] = {
            "nodes": (self._fault(plan).node(plan, nodes.node(plan)) for plan in self._plans),
            "pods": self._pods(),
            "leases.coordination.k8s.io": (self._fault(one).lease(one, nodes.lease(one)) for one in self._plans),
            "nodefeatures.nfd.k8s-sigs.io": self._features(),
            "daemonsets.apps": self._daemonsets(),
            "deployments.apps": self._deployments(),
            "replicasets.apps": self._replicasets(),
            "events": self._all_events(),
            "endpointslices.discovery.k8s.io": self._slices(),
            "namespaces": self._namespaces(),
            "services": (self._stored(one, "v1", "Service") for one in stack().services),
            "configmaps": (self._stored(one, "v1", "ConfigMap") for one in stack().configmaps),
            "runtimeclasses.node.k8s.io": (
                self._stored(one, "node.k8s.io/v1", "RuntimeClass") for one in stack().runtimeclasses
            ),
            **dict.fromkeys(_EMPTY, ()),
        }
        for kind, items in lists.items():
            self._sink.put(f"cluster/{kind}.json", _lines(items))
        groups = tuple(GroupRecord(name, versions) for name, versions in stack().groups.items())
        served = DiscoveryRecord(self._plans.machines.kubernetes, groups)
        self._sink.put("cluster/discovery.json", (msgspec.json.encode(served), b"\n"))
        hosts = tuple(self._hosts())
        at = self._spec.at
        return Manifest(
            format=BUNDLE_FORMAT,
            tool="gpucheck generate",
            run=RunRecord(id=f"generated-{self._spec.seed}", started=at, gathered_at=at, source="a generated cluster"),
            provenance="generated",
            not_real=NOT_REAL,
            asked=Asked(api=("discovery", *lists), logs=tuple(sorted(self._logs)), host=dict(hosts)),
            missing=tuple(sorted(self._missing, key=lambda one: one.evidence)),
        )

    def _hosts(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Write what is read on each GPU node, and yield its name and the reads."""
        for plan in self._plans if self._host else ():
            if plan.gpus and self._host:
                for path, content in self._host.files(plan):
                    self._sink.put(path, (content,))
                yield plan.name, self._host.reads

    def _fault(self, plan: NodePlan) -> Fault:
        return HEALTHY if plan.kind is None else FAULTS[plan.kind]

    def _pods(self) -> Iterator[Json]:
        """Yield all pods as the API does, by namespace, then by name; those of one owner stand together."""
        recipes = stack().daemonsets
        for namespace in sorted({recipe.namespace for recipe in recipes}):
            yield from self._single(namespace)
            if namespace == stack().static["metadata"]["namespace"]:
                for plan in self._plans:
                    yield self._fault(plan).pod(plan, "static", pods.static(plan))
            for slot, recipe in enumerate(recipes, 1):
                if recipe.namespace == namespace:
                    yield from self._of_daemonset(recipe, slot)
        yield from self._workloads()

    def _single(self, namespace: str) -> Iterator[Json]:
        """Yield the pods of the Deployments of one namespace; they run on the first nodes."""
        for place, manifest in enumerate(stack().deployments):
            if manifest["metadata"]["namespace"] == namespace:
                plan = self._plans[place % len(self._plans)]
                pod = pods.of_deployment(plan, manifest, slot=200 + place)
                self._log(plan, manifest["metadata"]["name"], pod)
                yield pod

    def _of_daemonset(self, recipe: DaemonSetRecipe, slot: int) -> Iterator[Json]:
        counts = self._counts[recipe.name]
        for plan in self._plans:
            fault = self._fault(plan)
            if (recipe.nodes == "gpu" and not plan.gpus) or not fault.wants(plan, recipe):
                continue
            pod = fault.pod(plan, recipe.name, pods.of_daemonset(plan, recipe, slot))
            ready = pods.is_ready(pod)
            counts.add(admitted=fault.admits(recipe), ready=ready)
            if recipe.name == EXPORTER:
                self._endpoints.append(pods.endpoint(pod, ready=ready))
            if recipe.name in STACK:
                self._log(plan, recipe.name, pod)
            self._events.extend(fault.events(plan, recipe.name, pod))
            yield pod

    def _log(self, plan: NodePlan, owner: str, pod: Json) -> None:
        """Write the log of a pod whose logs a collector may ask for; a broken node's always."""
        within = self._spec.logs is None or plan.place < self._spec.without_gpu + self._spec.logs
        if plan.kind is None and not within:
            return
        fault = self._fault(plan)
        metadata, container = pod["metadata"], pod["spec"]["containers"][0]["name"]
        name = f"{metadata['namespace']}/{metadata['name']}/{container}"
        found = fault.log(plan, owner)
        for ending in ("", "/previous") if fault.ran_before(owner) else ("",):
            self._logs.append(f"{name}{ending}")
            if found is None:
                source = f"logs/{name}"
                self._missing.append(MissingEvidence(source, MissingKind.ERROR, fault.refusal(pod), source))
                continue
            path = f"cluster/logs/{name.replace('/', '_')}{ending.replace('/', '.')}.log"
            self._sink.put_again(path, found.encode())

    def _workloads(self) -> Iterator[Json]:
        """Yield the teams' pods. A team's nodes stand in one row, so that its pods do, too."""
        for _, row in itertools.groupby(self._plans, key=lambda plan: plan.team):
            waiting = []
            for plan in row:
                fault = self._fault(plan)
                for pod in pods.workloads(plan):
                    owner = pod["metadata"]["ownerReferences"][0]["kind"]
                    if owner == "ReplicaSet":
                        self._replicas[plan.team] = self._replicas.get(plan.team, 0) + 1
                        waiting.append((plan, pod))
                        continue
                    self._log(plan, "train", pod)
                    yield fault.pod(plan, "train", pod)
            for plan, pod in waiting:
                yield self._fault(plan).pod(plan, "web", pod)

    def _features(self) -> Iterator[Json]:
        """Yield the workers' objects, then GFD's: in order of their namespaces."""
        by_gfd = ((plan, GFD, nodes.gpu_features) for plan in self._plans if plan.gpus)
        by_worker = ((plan, WORKER, nodes.worker_features) for plan in self._plans)
        for plan, owner, make in itertools.chain(by_worker, by_gfd):
            feature = self._fault(plan).features(plan, owner, make(plan))
            if feature is not None:
                yield feature

    def _daemonsets(self) -> Iterator[Json]:
        for recipe in stack().daemonsets:
            found = self._stored(recipe.manifest, "apps/v1", "DaemonSet")
            spec = {**found["spec"], "revisionHistoryLimit": 10, "updateStrategy": _ROLLING}
            metadata = {**found["metadata"], "generation": 1, "annotations": _GENERATION}
            yield {**found, "metadata": metadata, "spec": spec, "status": self._counts[recipe.name].status()}

    def _deployments(self) -> Iterator[Json]:
        for manifest in stack().deployments:
            yield {**self._stored(manifest, "apps/v1", "Deployment"), "status": pods.replicas_status(1)}
        for team, count in sorted(self._replicas.items()):
            manifest = pods.web_manifest(team, "web", count)
            yield {**self._stored(manifest, "apps/v1", "Deployment"), "status": pods.replicas_status(count)}

    def _replicasets(self) -> Iterator[Json]:
        for manifest in stack().deployments:
            yield pods.replicaset(self._spec.seed, self._spec.at, manifest, 1)
        for team, count in sorted(self._replicas.items()):
            yield pods.replicaset(self._spec.seed, self._spec.at, pods.web_manifest(team, "web", count), count)

    def _all_events(self) -> Iterator[Json]:
        yield from sorted(self._events, key=lambda one: (one["metadata"]["namespace"], one["metadata"]["name"]))

    def _slices(self) -> Iterator[Json]:
        """Yield the exporter's EndpointSlices, a hundred endpoints each as upstream's controller makes them."""
        for place in range(0, len(self._endpoints), _ENDPOINTS):
            yield pods.endpoint_slice(
                self._spec.seed, self._spec.at, self._endpoints[place : place + _ENDPOINTS], place // _ENDPOINTS
            )

    def _namespaces(self) -> Iterator[Json]:
        teams = {plan.team for plan in self._plans}
        for name in sorted({*_NAMESPACES, *(one.namespace for one in stack().daemonsets), *teams}):
            manifest = {
                "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            }
            yield self._stored(manifest, "v1", "Namespace")

    def _stored(self, manifest: Mapping[str, Any], version: str, kind: str) -> Json:
        return pods.stored(self._spec.seed, self._spec.at, manifest, version=version, kind=kind)


_ENDPOINTS: Final = 100
_NAMESPACES: Final = ("default", "kube-node-lease", "kube-public", "kube-system")
_EMPTY: Final = (
    "limitranges",
    "resourcequotas",
    "priorityclasses.scheduling.k8s.io",
    "deviceclasses.resource.k8s.io",
    "resourceclaims.resource.k8s.io",
    "resourceclaimtemplates.resource.k8s.io",
    "resourceslices.resource.k8s.io",
)
_ROLLING: Final = {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}, "type": "RollingUpdate"}
_GENERATION: Final = {"deprecated.daemonset.template.generation": "1"}


def generated_cluster(
    *,
    nodes: int,
    gpus_per_node: int = 8,
    pods_per_node: int = 8,
    seed: int = 1,
    broken: Iterable[str] = (),
    cpu_nodes: int | None = None,
) -> GeneratedCluster:
    """Return a specification from what a command line gives; `broken` as `KIND=SHARE`.

    Raises:
        ScenarioError: `broken` is not of that form, or no cluster can be so.
    """
    shares: dict[str, float] = {}
    for one in broken:
        kind, _, share = one.partition("=")
        try:
            shares[kind] = float(share)
        except ValueError as error:
            msg = f"broken '{one}': expected KIND=SHARE, as in not-ready=0.01; kinds are {', '.join(sorted(FAULTS))}"
            raise ScenarioError(msg) from error
    spec = GeneratedCluster(nodes, gpus_per_node, pods_per_node, seed, shares, cpu_nodes)
    spec.check(frozenset(FAULTS))
    return spec


def _checked(spec: GeneratedCluster, host: Bundle | None) -> tuple[GeneratedCluster, HostTemplate | None]:
    """Return the specification with its host's clock, and the host."""
    spec.check(frozenset(FAULTS))
    if host is None:
        return spec, None
    for kind in spec.broken:
        if FAULTS[kind].cause_with_host is None:
            others = ", ".join(kind for kind, fault in FAULTS.items() if fault.cause_with_host)
            msg = f"generate: {kind} contradicts the reads of a healthy host; with a host, expected one of {others}"
            raise ScenarioError(msg)
    return msgspec.structs.replace(spec, at=host.manifest.run.gathered_at), HostTemplate.of(host, spec)


def generated_files(spec: GeneratedCluster, host: Bundle | None = None) -> tuple[Manifest, dict[str, bytes]]:
    """Return a generated cluster's manifest and files, all in memory; `host` is the bundle that `spec.host` names.

    Raises:
        ScenarioError: no cluster can be as the specification says, or it is too large to be held.
    """
    spec, template = _checked(spec, host)
    if spec.nodes > MAX_NODES_IN_MEMORY:
        msg = (
            f"generate: {spec.nodes:,} nodes, at most {MAX_NODES_IN_MEMORY:,} are built in memory; "
            f"run 'gpucheck serve --nodes {spec.nodes}', which writes them to disk"
        )
        raise ScenarioError(msg)
    sink = _Memory()
    return _Writer(sink, spec, template).write(), sink.files


def write_generated(folder: Path, spec: GeneratedCluster, host: Bundle | None = None) -> Manifest:
    """Write a generated cluster's bundle into a folder, and return its manifest. Creates the folder.

    `host` is the bundle that `spec.host` names.

    Raises:
        ScenarioError: no cluster can be as the specification says.
        BundleError: the folder cannot be written, or is not empty.
    """
    spec, template = _checked(spec, host)
    sink = _Folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            msg = f"{folder}: not empty; name a folder that is not there yet"
            raise BundleError(msg)
        manifest = msgspec.structs.replace(_Writer(sink, spec, template).write(), files=sink.digests)
        (folder / "bundle.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
    except OSError as error:
        msg = f"{folder}: {error.strerror or error}; name a folder that can be written"
        raise BundleError(msg) from error
    return manifest
