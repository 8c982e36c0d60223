"""What a bundle answers: its lists and logs, its missing evidence as the failures that it was.

Evidence that is not the API's goes out as the log of a probe's pod, one for each node of which there is any.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kube_gpucheck.errors import BundleError
from kube_gpucheck.evidence.bundle import Bundle
from kube_gpucheck.evidence.nodereport import REPORT_FORMAT, NodeReport, encode_report
from kube_gpucheck.model import MissingEvidence, MissingKind, Seen
from kube_gpucheck.simulate.answers import RefusedError

PROBE_NAMESPACE: Final = "gpucheck"
PROBE_LABELS: Final[Mapping[str, str]] = {
    "app.kubernetes.io/managed-by": "gpucheck",
    "app.kubernetes.io/component": "probe",
}
PROBE_CONTAINER: Final = "probe"
_PROBE: Final = "gpucheck-probe-"
_LIST: Final = re.compile(r"cluster/([a-z][a-z0-9-]*(?:\.[a-z0-9.-]+)?)\.json")
_NODE_LOG: Final = re.compile(r"nodes/([^/]+)/logs/(.+)\.log")
_NODE_HOST: Final = re.compile(r"nodes/([^/]+)/host\.json")
_WORKLOAD: Final = re.compile(r"workloads/([^/]+)/([^/]+)\.json")

_KUBELET_SAYS: Final = (
    "unable to retrieve container logs for ",
    "failed to try resolving symlinks in path ",
    "failed to open log file ",
)
"""What a kubelet sends in a log's place, with status 200. Source: kubernetes/pkg/kubelet/kuberuntime
kuberuntime_container.go, GetContainerLogs; k8s.io/cri-client pkg/logs."""


class Playback:
    """One bundle, asked as an API server is."""

    def __init__(self, bundle: Bundle) -> None:
        """Look at what there is; no list is read yet."""
        self.bundle = bundle
        asked = bundle.manifest.asked
        self._missing = {(one.evidence, one.node): one for one in bundle.manifest.missing}
        self._asked = frozenset(asked.api)
        self._logs = frozenset(asked.logs)
        paths = tuple(bundle.store.paths())
        self._present = frozenset(match[1] for match in map(_LIST.fullmatch, paths) if match)
        self.kinds = tuple(sorted(self._present - {"discovery"}))
        """The kinds of which the bundle has a list."""
        self.asked_kinds = tuple(one for one in asked.api if one != "discovery")
        self._node_logs: dict[str, list[str]] = {}
        for match in filter(None, map(_NODE_LOG.fullmatch, paths)):
            self._node_logs.setdefault(match[1], []).append(match[2])
        self._workloads: dict[str, list[str]] = {}
        for match in filter(None, map(_WORKLOAD.fullmatch, paths)):
            self._workloads.setdefault(match[2], []).append(match[1])
        for missing in bundle.manifest.missing:
            family, _, rest = missing.evidence.partition("/")
            if family == "workload" and rest.count("/") == 1:
                self._workloads.setdefault(rest.rpartition("/")[2], [])
        hosts = {match[1] for match in map(_NODE_HOST.fullmatch, paths) if match}
        self.probed = tuple(sorted({*asked.host, *hosts, *self._node_logs, *self._workloads}))
        """The nodes of which there is evidence that is not the API's."""

    def refusal(self, kind: str) -> RefusedError | None:
        """Return why a kind (or `discovery`) cannot be had, None if the bundle has it.

        A kind that nobody asked for is refused too: that the bundle holds none of it proves nothing.
        """
        missing = self._missing.get((f"api/{kind}", None))
        if missing is not None:
            return failure(missing)
        if kind in self._present:
            return None
        if kind in self._asked:
            message = f"cluster/{kind}.json was asked for and is not in the bundle"
            return RefusedError(500, "InternalError", message)
        return never_asked(kind)

    def knows_nothing(self, kind: str) -> bool:
        """Tell whether nobody asked for a kind: then what is made here is all that is known of it."""
        return ("api/" + kind, None) not in self._missing and kind not in self._present and kind not in self._asked

    def content(self, kind: str) -> bytes:
        """Return the file of a kind that is not refused.

        Raises:
            RefusedError: 500, it cannot be read.
        """
        return self._content(f"cluster/{kind}.json") or b""

    def garbled(self, kind: str) -> bool:
        """Tell whether a kind's answer could not be parsed."""
        missing = self._missing.get((f"api/{kind}", None))
        return missing is not None and missing.kind is MissingKind.UNPARSABLE

    def log(self, namespace: str, pod: str, container: str, *, previous: bool) -> bytes | None:
        """Return a container's log, None if nobody asked for it.

        Raises:
            RefusedError: it could not be had, and this is how.
        """
        name = f"{namespace}/{pod}/{container}{'/previous' if previous else ''}"
        missing = self._missing.get((f"logs/{name}", None))
        if missing is not None:
            if missing.kind is MissingKind.ERROR and missing.reason.startswith(_KUBELET_SAYS):
                return missing.reason.encode()
            raise failure(missing, of_log=True)
        path = f"cluster/logs/{namespace}_{pod}_{container}{'.previous' if previous else ''}.log"
        content = self._content(path)
        if content is None and name in self._logs:
            raise RefusedError(500, "InternalError", f"{path} was asked for and is not in the bundle")
        return content

    def telemetry(self, target: str) -> bytes | None:
        """Return what a target answered when it was scraped, None if nobody asked it."""
        return self._content(f"telemetry/{target}.prom")

    def probe_pods(self) -> tuple[bytes, ...]:
        """Return the pods whose logs carry the evidence of each node."""
        return tuple(msgspec.json.encode(self._probe_pod(node)) for node in self.probed)

    def probe_namespace(self) -> bytes:
        """Return the namespace of the probe's pods."""
        metadata = {"name": PROBE_NAMESPACE, "labels": _labels(PROBE_NAMESPACE), "creationTimestamp": self._now()}
        return msgspec.json.encode({"metadata": metadata, "spec": {}, "status": {"phase": "Active"}})

    def node_of(self, namespace: str, pod: str) -> str | None:
        """Return the node whose evidence a pod's log carries, None if it is no probe's pod."""
        node = pod.removeprefix(_PROBE)
        return node if namespace == PROBE_NAMESPACE and node != pod and node in self.probed else None

    def probe_log(self, node: str) -> bytes:
        """Return the log of a node's probe: its report, as one block.

        Raises:
            RefusedError: nothing of the node could be had, and this is how.
        """
        whole = self._missing.get(("host", node))
        host = self._content(f"nodes/{node}/host.json")
        logs = {unit: self._text(f"nodes/{node}/logs/{unit}.log") for unit in self._node_logs.get(node, ())}
        workloads = {
            name: msgspec.Raw(self._content(f"workloads/{name}/{node}.json") or b"null")
            for name in self._workloads.get(node, ())
        }
        missing = tuple(
            one
            for one in self.bundle.manifest.missing
            if one.node == node or (one.evidence.startswith("workload/") and one.evidence.endswith(f"/{node}"))
        )
        if whole is not None and host is None and not logs and not workloads and missing == (whole,):
            raise failure(whole, of_log=True)
        if host is None and whole is None and any(not key.startswith("log:") for key in self._keys(node)):
            reason = f"nodes/{node}/host.json was asked for and is not in the bundle"
            missing = (*missing, MissingEvidence("host", MissingKind.ERROR, reason, "host", node))
        report = NodeReport(
            REPORT_FORMAT, node, self._keys(node), msgspec.Raw(host or b"null"), logs, workloads, missing
        )
        try:
            return encode_report(report).encode()
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            message = f"nodes/{node}: the bundle's evidence of this node cannot be put in a report: {error}"
            raise RefusedError(500, "InternalError", message) from error

    def _keys(self, node: str) -> tuple[str, ...]:
        return self.bundle.manifest.asked.host.get(node, ())

    def _content(self, path: str) -> bytes | None:
        try:
            return self.bundle.store.read(path)
        except BundleError as error:
            raise RefusedError(500, "InternalError", str(error)) from error

    def _text(self, path: str) -> str:
        return (self._content(path) or b"").decode("utf-8", "replace")

    def _now(self) -> str:
        return self.bundle.gathered_at.strftime("%Y-%m-%dT%H:%M:%SZ")

    def _probe_pod(self, node: str) -> dict[str, Any]:
        running = {"startedAt": self._now()}
        image = "gpucheck-probe"
        status = {"name": PROBE_CONTAINER, "ready": True, "restartCount": 0, "image": image, "imageID": image}
        return {
            "metadata": {
                "name": f"{_PROBE}{node}",
                "namespace": PROBE_NAMESPACE,
                "labels": {**PROBE_LABELS},
                "creationTimestamp": self._now(),
            },
            "spec": {"containers": [{"name": PROBE_CONTAINER, "image": image}], "nodeName": node},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": self._now()}],
                "containerStatuses": [{**status, "state": {"running": running}}],
                "startTime": self._now(),
            },
        }


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/managed-by": "gpucheck", "kubernetes.io/metadata.name": name}


def never_asked(what: str) -> RefusedError:
    """Return 403 for what the bundle knows nothing of, said so."""
    return RefusedError(403, "Forbidden", f"{what} is forbidden: the bundle that is played back never asked for it")


def failure(missing: MissingEvidence, *, of_log: bool = False) -> RefusedError:
    """Return the refusal that missing evidence was; its message is the reason, word for word."""
    match missing.kind:
        case MissingKind.FORBIDDEN:
            return RefusedError(403, "Forbidden", missing.reason)
        case MissingKind.TIMEOUT:
            return RefusedError(504, "Timeout", missing.reason)
        case _ if of_log:
            return RefusedError(400, "BadRequest", missing.reason)
        case _:
            return RefusedError(500, "InternalError", missing.reason)


def server_version(bundle: Bundle) -> str:
    """Return the git version of the bundle's server, "" if it is not known."""
    discovery = bundle.discovery()
    return discovery.value.version if isinstance(discovery, Seen) else ""
