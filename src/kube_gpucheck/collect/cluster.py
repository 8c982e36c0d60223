"""Collects a live cluster's evidence into a bundle: what is served, lists, logs, and what probes report.

The front door of this room. What cannot be read is missing, with the server's words; only what leaves
nothing to judge ends the collection. docs/collecting.md tells the order and the limits.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from kube_gpucheck.collect import deadlines
from kube_gpucheck.collect.api import Api, RefusedError
from kube_gpucheck.collect.connection import Connection, FailureKind
from kube_gpucheck.collect.discovery import Discovery, read_discovery, read_version
from kube_gpucheck.collect.lists import ListRequest, Lists
from kube_gpucheck.collect.localhost import boot_id_of, renamed
from kube_gpucheck.collect.logs import path_of, read_logs
from kube_gpucheck.collect.probe import files_of, find_probes, read_reports
from kube_gpucheck.collect.progress import SILENT, Progress
from kube_gpucheck.collect.survey import Survey
from kube_gpucheck.collect.waiting import PATIENT, Deadline, Patience
from kube_gpucheck.collect.workers import Workers
from kube_gpucheck.errors import GpucheckError, UsageError
from kube_gpucheck.evidence.bundle import BUNDLE_FORMAT, Asked, Manifest, RunRecord
from kube_gpucheck.evidence.names import NEVER, is_kind, is_name
from kube_gpucheck.evidence.nodereport import NodeReport
from kube_gpucheck.evidence.pruning import PRUNED
from kube_gpucheck.evidence.redaction import Redactor
from kube_gpucheck.evidence.writing import BundleWriter
from kube_gpucheck.model import MissingEvidence, MissingKind

DISCOVERY: Final = "discovery"
KINDS: Final = (
    "nodes",
    "runtimeclasses.node.k8s.io",
    "pods",
    "daemonsets.apps",
    "deployments.apps",
    "replicasets.apps",
    "events",
    "services",
    "endpointslices.discovery.k8s.io",
    "namespaces",
    "resourcequotas",
    "limitranges",
    "priorityclasses.scheduling.k8s.io",
    "leases.coordination.k8s.io",
    "nodefeatures.nfd.k8s-sigs.io",
    "servicemonitors.monitoring.coreos.com",
    "podmonitors.monitoring.coreos.com",
    "prometheuses.monitoring.coreos.com",
    "clusterpolicies.nvidia.com",
    "gpuclusters.nvidia.com",
    "nvidiadrivers.nvidia.com",
    "deviceclasses.resource.k8s.io",
    "resourceclaims.resource.k8s.io",
    "resourceclaimtemplates.resource.k8s.io",
    "resourceslices.resource.k8s.io",
    "computedomains.resource.nvidia.com",
)
"""What is read of a cluster where nobody says what; RuntimeClasses before the pods that name them."""
CONFIGMAPS: Final = "configmaps"
"""Read last, of the namespaces that hold a workload of the stack."""
STEADY: Final = frozenset(
    {"namespaces", "limitranges", "priorityclasses.scheduling.k8s.io", "prometheuses.monitoring.coreos.com"}
)
"""Kinds that only a person changes: no controller does while somebody waits for an installation to settle."""
OF_A_NAMESPACE: Final = frozenset({"configmaps", "events", "pods"})
"""Kinds that tell of a pod where only its namespace may be read; of others a part of the list would mislead."""
THREADS: Final = 8
"""Requests at a time: kubectl itself allows bursts of hundreds; logs come from many nodes."""
_OF_THE_STACK: Final = ("daemonsets.apps", "deployments.apps", "pods")
"""Kinds that tell in which namespaces the stack is."""
_FORBIDDEN: Final = 403
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404


def collect(  # noqa: PLR0913  one front door; all but the first two are named
    connection: Connection,
    folder: Path,
    *,
    ask: Asked | None = None,
    run: RunRecord,
    tool: str,
    provenance: str = "live",
    modelled_on: str | None = None,
    not_real: tuple[str, ...] = (),
    progress: Progress = SILENT,
    timeout_s: float = deadlines.RUN_S,
    pod: tuple[str, str] | None = None,
    host: NodeReport | None = None,
    reuse: Path | None = None,
    hashed: bool = True,
    patience: Patience = PATIENT,
) -> Manifest:
    """Write a bundle of what a cluster's API tells into a folder, and return its manifest.

    `ask`: exactly what to read; None reads what gpucheck judges. `pod`: namespace and name of the one pod that
    matters, read with no more rights than its namespace's. `host`: what was read of the host that gpucheck runs on; it
    counts for the node that was started when it was, else for a host of its own. `reuse`: the folder of an earlier
    bundle of the same run, from which kinds that no controller changes are taken. `timeout_s`: for everything
    together; what has not come by then is missing. The run's `gathered_at` becomes the server's clock. Creates the
    folder.

    Raises:
        UsageError: the folder holds something, `ask` names Secrets or no kind, or there is no such pod.
        GpucheckError: the server cannot be reached or trusted, does not know who asks, or lists no nodes for them.
    """
    _refuse(ask)
    writer = BundleWriter(folder, hashed=hashed)
    deadline = Deadline(timeout_s)
    pool = Workers(THREADS, deadline, progress=progress)
    try:
        api = Api(connection, deadline=deadline, patience=patience)
        collection = _Collection(api, pool, writer, progress=progress)
        asked = collection.read(ask, pod, host, reuse)
        when = api.clock or run.gathered_at
        return writer.finish(
            Manifest(
                format=BUNDLE_FORMAT,
                tool=tool,
                run=msgspec.structs.replace(run, gathered_at=when),
                provenance=provenance,
                asked=asked,
                modelled_on=modelled_on,
                not_real=not_real,
                missing=tuple(collection.missing),
                pruned=PRUNED,
                redacted=collection.redactor.counts(),
            )
        )
    except BaseException:
        writer.abandon()
        raise
    finally:
        pool.close()


def _refuse(ask: Asked | None) -> None:
    for kind in ask.api if ask else ():
        if kind.partition(".")[0] in NEVER:
            msg = f"'{kind}' is never read: gpucheck needs no Secret; take it out of what is asked for"
            raise UsageError(msg)
        if not is_kind(kind):
            msg = f"'{kind}' is no kind; write <plural>[.<group>], such as 'daemonsets.apps'"
            raise UsageError(msg)


class _Collection:
    """One cluster on its way into one bundle."""

    def __init__(self, api: Api, pool: Workers, writer: BundleWriter, *, progress: Progress) -> None:
        self._api = api
        self._pool = pool
        self._writer = writer
        self._progress = progress
        self._survey = Survey()
        self.redactor = Redactor()
        self.missing: list[MissingEvidence] = []
        self._lists = Lists(api, pool, writer, redactor=self.redactor, progress=progress, observer=self._survey.see)

    def read(
        self, ask: Asked | None, pod: tuple[str, str] | None, this_host: NodeReport | None, reuse: Path | None
    ) -> Asked:
        """Read everything, and return what was asked for."""
        self._progress.begin(DISCOVERY)
        discovery = read_discovery(self._api, self._pool, self._version())
        kinds = (DISCOVERY, *KINDS, CONFIGMAPS) if ask is None else ask.api
        if DISCOVERY in kinds:
            self._keep_discovery(discovery)
        own = self._read_pod(pod) if pod else None
        self._survey.pod = pod
        self._survey.boot_id = None if this_host is None else boot_id_of(this_host)
        namespace = pod[0] if pod else None
        listed = [kind for kind in kinds if kind != DISCOVERY and not (ask is None and kind == CONFIGMAPS)]
        fatal = "nodes" if ask is None and pod is None else None
        self._read_kinds(discovery, self._take(listed, reuse), namespace, fatal=fatal)
        if own is not None and not (self._writer.folder / "cluster/pods.json").exists():
            self._lists.write_alone("pods", own)
        if ask is None:
            self._read_configmaps(discovery, namespace)
        logs = self._survey.logs() if ask is None else ask.logs
        self._read_logs(logs)
        host, workload = self._read_probes(ask)
        if this_host is not None:
            name = self._survey.place_of(this_host.node)
            host = {**host, name: self._keep_report(renamed(this_host, name))}
        if ask is not None:
            return ask
        return Asked(api=kinds, logs=logs, host=host, workload=workload)

    # --- the server --------------------------------------------------------------------------------

    def _version(self) -> str:
        """Return the server's version: the first request, which shows whether there is a server for us at all.

        Raises:
            GpucheckError: there is none.
        """
        try:
            return read_version(self._api, self._pool)
        except RefusedError as refusal:
            if refusal.status is None or refusal.status == _UNAUTHORIZED:
                raise _unusable(self._api.connection, refusal) from refusal
            return ""

    def _keep_discovery(self, discovery: Discovery) -> None:
        if discovery.refusal is not None:
            self._lose(f"api/{DISCOVERY}", discovery.refusal)
            return
        content = msgspec.json.format(msgspec.json.encode(discovery.record), indent=1) + b"\n"
        self._writer.put("cluster/discovery.json", content)

    # --- lists -------------------------------------------------------------------------------------

    def _take(self, kinds: Sequence[str], reuse: Path | None) -> tuple[str, ...]:
        """Take what does not change from an earlier bundle, and return the kinds that are to be read."""
        if reuse is None:
            return tuple(kinds)
        left = []
        for kind in kinds:
            path = f"cluster/{kind}.json"
            if kind in STEADY and (reuse / path).is_file():
                self._writer.take(path, reuse / path)
            else:
                left.append(kind)
        return tuple(left)

    def _read_kinds(
        self, discovery: Discovery, kinds: Iterable[str], namespace: str | None, *, fatal: str | None = None
    ) -> None:
        """Read kinds, each at the places where it may stand until one has it.

        Raises:
            GpucheckError: the kind without which there is nothing to judge is forbidden.
        """
        places = {kind: list(discovery.paths(kind)) for kind in kinds}
        while requests := [ListRequest(kind, (left.pop(0),)) for kind, left in places.items() if left]:
            for request, refusal in self._lists.read(requests):
                kind = request.kind
                if refusal is None:
                    places[kind].clear()
                    continue
                if kind == fatal and refusal.status in {_FORBIDDEN, _UNAUTHORIZED}:
                    raise _unusable(self._api.connection, refusal, without=kind) from refusal
                if refusal.status == _NOT_FOUND:
                    if not places[kind] and discovery.tells(kind):
                        self._lose(f"api/{kind}", refusal)
                    continue
                places[kind].clear()
                self._lose(f"api/{kind}", refusal)
                if namespace is not None and kind in OF_A_NAMESPACE and refusal.status == _FORBIDDEN:
                    self._read_in(discovery, kind, (namespace,))

    def _read_in(self, discovery: Discovery, kind: str, namespaces: Iterable[str]) -> RefusedError | None:
        """Read a kind of some namespaces only; None if it was written."""
        paths = tuple(path for one in namespaces for path in discovery.namespaced(kind, one)[:1])
        for _, refusal in self._lists.read([ListRequest(kind, paths)]):
            return refusal
        return None

    def _read_configmaps(self, discovery: Discovery, namespace: str | None) -> None:
        """Read the ConfigMaps beside the stack's workloads, and beside the one pod that matters."""
        unknown = self._unsurveyed()
        namespaces = {one for one in self._survey.namespaces if is_name(one)} | ({namespace} if namespace else set())
        refusal = self._read_in(discovery, CONFIGMAPS, sorted(namespaces)) if namespace or not unknown else None
        lost = unknown or refusal
        if lost is not None:
            self._lose(f"api/{CONFIGMAPS}", lost)

    def _unsurveyed(self) -> RefusedError | None:
        """Return why it cannot be told which namespaces hold the stack, None if its workloads were read."""
        for one in self.missing:
            if one.evidence in {f"api/{kind}" for kind in _OF_THE_STACK}:
                return RefusedError(one.kind, f"which namespaces hold the stack is not known: {one.reason}")
        return None

    # --- one pod -----------------------------------------------------------------------------------

    def _read_pod(self, pod: tuple[str, str]) -> bytes:
        """Return the pod that matters.

        Raises:
            UsageError: there is no such pod.
            GpucheckError: it may not be read.
        """
        namespace, name = pod
        if not (is_name(namespace) and is_name(name)):
            msg = f"'{namespace}/{name}' is no pod's name; write --pod NAMESPACE/NAME"
            raise UsageError(msg)
        try:
            path = f"/api/v1/namespaces/{namespace}/pods/{name}"
            return self._pool.ask(lambda: self._api.read(path)).content
        except RefusedError as refusal:
            if refusal.status == _NOT_FOUND:
                msg = f"pod '{namespace}/{name}': {refusal.reason}; 'kubectl get pods -n {namespace}' lists them"
                raise UsageError(msg) from refusal
            raise _unusable(self._api.connection, refusal, without=f"pod '{namespace}/{name}'") from refusal

    # --- logs and probes ---------------------------------------------------------------------------

    def _read_logs(self, names: Sequence[str]) -> None:
        if not names:
            return
        self._progress.begin("logs")
        kept = [name for name in names if path_of(name)]
        for name in names:
            if not path_of(name):
                reason = f"'{name}' is no log's name; it is <namespace>/<pod>/<container>[/previous]"
                self.missing.append(MissingEvidence(f"logs/{name}", MissingKind.ERROR, reason, f"logs/{name}"))
        for done, (name, answer) in enumerate(read_logs(self._api, self._pool, kept), start=1):
            path = path_of(name)
            if isinstance(answer, RefusedError):
                self._lose(f"logs/{name}", answer)
            elif path is not None:
                self._writer.put(path, self.redactor.content(path, answer))
            self._progress.advance(done, len(kept))
        self._progress.end(f"{len(kept):,}")

    def _read_probes(self, ask: Asked | None) -> tuple[Mapping[str, tuple[str, ...]], tuple[str, ...]]:
        """Read what probes report; return what was asked of each node, and the measurements."""
        wanted = None if ask is None else {*ask.host, *(one.rpartition("/")[2] for one in ask.workload)}
        if wanted is not None and not wanted:
            return {}, ()
        try:
            probes = find_probes(self._api, self._pool)
        except RefusedError as refusal:
            for node in sorted(wanted or ()):
                self._lose("host", refusal, node=node)
            return {}, ()
        if wanted is not None:
            for node in sorted(wanted - probes.keys()):
                reason = f"no probe runs on node '{node}'"
                self.missing.append(MissingEvidence("host", MissingKind.ERROR, reason, "host", node))
            probes = {node: pod for node, pod in probes.items() if node in wanted}
        return self._read_reports(probes)

    def _read_reports(self, probes: Mapping[str, str]) -> tuple[Mapping[str, tuple[str, ...]], tuple[str, ...]]:
        if not probes:
            return {}, ()
        host: dict[str, tuple[str, ...]] = {}
        silent: list[str] = []
        workload: list[str] = []
        self._progress.begin("probes")
        for done, (node, report) in enumerate(read_reports(self._api, self._pool, probes), start=1):
            if isinstance(report, RefusedError):
                self._lose("host", report, node=node)
                silent.append(node)
            else:
                host[node] = self._keep_report(report)
                workload += [f"{name}/{node}" for name in report.workloads if is_name(name)]
            self._progress.advance(done, len(probes))
        self._progress.end(f"{len(probes):,}")
        usual = tuple(dict.fromkeys(key for keys in host.values() for key in keys))
        return {**host, **dict.fromkeys(silent, usual)}, tuple(workload)

    def _keep_report(self, report: NodeReport) -> tuple[str, ...]:
        """Write what was read of one host, and return what was asked of it."""
        self.missing.extend(report.missing)
        for path, content in files_of(report):
            self._writer.put(path, self.redactor.content(path, content))
        return report.asked

    def _lose(self, evidence: str, refusal: RefusedError, *, node: str | None = None) -> None:
        self.missing.append(MissingEvidence(evidence, refusal.kind, refusal.reason, evidence, node))


_WAYS_OUT: Final[Mapping[FailureKind, str]] = {  # that of CREDENTIALS stands in its reason
    FailureKind.UNREACHABLE: "see that the address is right and reached from here (VPN, proxy, firewall)",
    FailureKind.RESET: "see what stands between here and there (proxy, load balancer), and try again",
    FailureKind.TIMEOUT: "see that the address is reached from here (VPN, proxy, firewall), and try again",
    FailureKind.TLS: "correct the cluster's certificate-authority-data, server or tls-server-name there",
}


def _unusable(connection: Connection, refusal: RefusedError, *, without: str | None = None) -> GpucheckError:
    """Return the error that ends a collection: what was asked where, what came, and the way out."""
    where = f"{connection.server} (context '{connection.context}')"
    if without is not None and refusal.status != _UNAUTHORIZED:
        way_out = "docs/access.md shows the rights to add; with one namespace's rights, use --pod NAMESPACE/NAME"
        return GpucheckError(f"{where}: {without} may not be read: {refusal.reason}; {way_out}")
    if refusal.status == _UNAUTHORIZED:
        way_out = "renew the credentials, or name another context with --context"
        return GpucheckError(f"{where} does not know who asks: {refusal.reason}; {way_out}")
    parts = (f"{where}: {refusal.reason}", _WAYS_OUT.get(refusal.failure or FailureKind.TIMEOUT, ""))
    return GpucheckError("; ".join(filter(None, parts)))
