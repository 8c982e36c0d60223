"""What kubectl's answers mean: a kind's API group, a refusal's kind, a log that is an error.

Reads no file. Shared by every importer of what kubectl printed.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from kube_gpucheck.evidence.dumps import tool_error
from kube_gpucheck.model import MissingKind

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    group: tuple(plurals.split())
    for group, plurals in {
        "": (
            "configmaps endpoints events limitranges namespaces nodes persistentvolumeclaims persistentvolumes pods "
            "podtemplates replicationcontrollers resourcequotas serviceaccounts services"
        ),
        "admissionregistration.k8s.io": (
            "mutatingwebhookconfigurations validatingadmissionpolicies validatingadmissionpolicybindings "
            "validatingwebhookconfigurations"
        ),
        "apiextensions.k8s.io": "customresourcedefinitions",
        "apiregistration.k8s.io": "apiservices",
        "apps": "controllerrevisions daemonsets deployments replicasets statefulsets",
        "autoscaling": "horizontalpodautoscalers",
        "batch": "cronjobs jobs",
        "certificates.k8s.io": "certificatesigningrequests",
        "config.openshift.io": "clusteroperators clusterversions",
        "coordination.k8s.io": "leases",
        "discovery.k8s.io": "endpointslices",
        "karpenter.sh": "nodeclaims nodepools",
        "kueue.x-k8s.io": "clusterqueues localqueues resourceflavors workloads",
        "machineconfiguration.openshift.io": "machineconfigpools machineconfigs",
        "monitoring.coreos.com": "podmonitors prometheuses prometheusrules servicemonitors",
        "networking.k8s.io": "ingresses networkpolicies",
        "nfd.k8s-sigs.io": "nodefeaturegroups nodefeaturerules nodefeatures",
        "nfd.openshift.io": "nodefeaturediscoveries",
        "node.k8s.io": "runtimeclasses",
        "nvidia.com": "clusterpolicies nvidiadrivers",
        "policy": "poddisruptionbudgets",
        "rbac.authorization.k8s.io": "clusterrolebindings clusterroles rolebindings roles",
        "resource.k8s.io": "deviceclasses devicetaintrules resourceclaims resourceclaimtemplates resourceslices",
        "resource.nvidia.com": "computedomaincliques computedomains",
        "scheduling.k8s.io": "priorityclasses",
        "security.openshift.io": "securitycontextconstraints",
        "storage.k8s.io": "csidrivers csinodes csistoragecapacities storageclasses volumeattachments",
    }.items()
}
"""Plural names of kinds by API group, of Kubernetes 1.36 and of the operators that serve GPUs: kubectl
names a kind without its group, and an empty list does not tell it."""

_GROUP_OF: Final = {plural: group for group, plurals in GROUPS.items() for plural in plurals}

_NOT_SERVED: Final = re.compile(
    r"the server doesn't have a resource type|the server could not find the requested resource|no matches for kind",
    re.IGNORECASE,
)
_FORBIDDEN: Final = re.compile(
    r"forbidden|unauthorized|must be logged in|insufficient permissions|permission denied", re.IGNORECASE
)
_TIMEOUT: Final = re.compile(r"timed? ?out|deadline exceeded|timeout", re.IGNORECASE)

_PREFIX: Final = re.compile(r"\A(?:Defaulted container .{1,4000}? )?Error from server(?: \(\w+\))?: ")
_DEFAULTED: Final = re.compile(r"Defaulted container [^\n]{0,4000}\n")
_NO_LOG: Final = re.compile(
    r"Error from server(?: \(\w+\))?: |unable to retrieve container logs for |"
    r"failed to try resolving symlinks in path |failed to open log file |"
    r"The connection to the server |Unable to connect to the server|Get \"https?://|"
    r"error: (?:a container name must be specified|timed out|You must be logged in|container \S+ is not valid for pod)",
    re.IGNORECASE,
)
_NO_JOURNAL: Final = re.compile(
    r"No journal files were (?:found|opened)|Failed to (?:open (?:files|journal|system journal)|add filter for units)|"
    r"Hint: You are currently not seeing messages from"
)
_LONGEST_ERROR: Final = 4096


def mapping(value: Any) -> dict[str, Any]:  # noqa: ANN401  decoded JSON
    """Return a decoded JSON object, an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:  # noqa: ANN401  decoded JSON
    """Return a decoded JSON list, an empty one for anything else."""
    return value if isinstance(value, list) else []


def kind_of(value: Any) -> str:  # noqa: ANN401  decoded JSON
    """Return in a word or two what a decoded JSON value is, for messages."""
    match value:
        case None:
            return "nothing"
        case dict():
            return "an object"
        case list():
            return "a list"
        case str():
            return "a text"
        case _:
            return f"the value {value!r}"


def full_name(plural: str, value: Any) -> str:  # noqa: ANN401  decoded JSON
    """Return `<plural>.<group>` of a kind as kubectl names it, from its objects, else from the table."""
    if "." in plural:
        return plural
    first = next(iter(sequence(mapping(value).get("items"))), None)
    version = mapping(first).get("apiVersion")
    if not version and mapping(value).get("kind") != "List":
        version = mapping(value).get("apiVersion")
    group = version.rpartition("/")[0] if isinstance(version, str) else _GROUP_OF.get(plural, "")
    return f"{plural}.{group}" if group else plural


def not_served(reason: str) -> bool:
    """Tell whether kubectl said that the server has no such kind."""
    return _NOT_SERVED.search(reason) is not None


def kind_of_failure(reason: str) -> MissingKind:
    """Return what kind of failure a message tells of."""
    if _FORBIDDEN.search(reason):
        return MissingKind.FORBIDDEN
    return MissingKind.TIMEOUT if _TIMEOUT.search(reason) else MissingKind.ERROR


def words_of_server(error: str) -> str:
    """Return what the API server said, of what kubectl printed: it puts the Status's reason before its message."""
    return _PREFIX.sub("", error, count=1)


def error_in_place_of_log(content: bytes) -> str | None:
    """Return the error that kubectl or the kubelet gave instead of a log, on one line; None if it is a log.

    A container that waits to start, one whose previous run is gone and an engine that does not answer are
    all told so, with what would be a log's text.
    """
    text = _short(content)
    found = None if text is None else _NO_LOG.match(_DEFAULTED.sub("", f"{text}\n", count=1))
    return " ".join(text.split()) if text is not None and found is not None else None


def error_in_place_of_journal(content: bytes) -> str | None:
    """Return the error that journalctl or `cat` gave instead of a service's log; None if it is a log."""
    text = _short(content)
    if text is None or (_NO_JOURNAL.match(text) is None and tool_error(text) is None):
        return None
    return " ".join(text.split())


def _short(content: bytes) -> str | None:
    if len(content) > _LONGEST_ERROR:
        return None
    text = content.decode("utf-8", "replace").strip()
    return text if text.count("\n") <= 2 else None  # noqa: PLR2004  an error is a line, with a warning or two
