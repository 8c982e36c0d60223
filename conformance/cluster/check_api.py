"""Cluster layer: the API server answers, and shows what this run asks for."""

from kube_gpucheck.evidence import Cluster
from kube_gpucheck.evidence.access import LOGS, in_a_role, rules_to_read
from kube_gpucheck.evidence.cluster import KINDS
from kube_gpucheck.judging import check, fault, known
from kube_gpucheck.model import Layer, Missing, MissingKind, Seen, Severity

THEN = "then run 'gpucheck run -k CLU-001'"
NOTHING_ASKED = Missing(MissingKind.NOT_ASKED, "nothing was asked of a Kubernetes API", "bundle.json")


@check("CLU-001", layer=Layer.CLUSTER, severity=Severity.CRITICAL)
def check_api_shows_what_is_asked_for(cluster: Cluster) -> None:
    """The API server answers, and the credentials may read what this run asks for.

    A kind that the server does not serve was answered: rows that need it say what that means. A forbidden
    kind other than nodes, or a forbidden log, is minor here; the rows that need it are unknown, each for itself.
    """
    asked = tuple(kind for kind in cluster.bundle.manifest.asked.api if kind != "discovery")
    known(Seen(asked) if asked else NOTHING_ASKED, "the Kubernetes API")
    failures = {kind: reading for kind in asked if isinstance(reading := _reading(cluster, kind), Missing)}
    forbidden = [kind for kind, missing in failures.items() if missing.kind is MissingKind.FORBIDDEN]
    logs = _forbidden_logs(cluster)
    rules = in_a_role(rules_to_read([*forbidden, *([LOGS] if logs else [])]))
    if "nodes" in forbidden:
        fault(
            seen=f"nodes: {failures['nodes'].reason}",
            means="without the nodes nothing can be said of the cluster's GPUs",
            remedy=f"grant these credentials a ClusterRole with the rules {rules}, {THEN}",
        )
    silent = {kind: missing for kind, missing in failures.items() if _is_silent(cluster, kind, missing)}
    if len(silent) == len(asked):
        kind, missing = next(iter(silent.items()))
        fault(
            seen=f"none of {len(asked)} kinds was answered; {kind}: {missing.reason}",
            means="the API server does not answer from where gpucheck runs",
            remedy=f"look whether 'kubectl get --raw /readyz' answers with the same kubeconfig, {THEN}",
        )
    if forbidden or logs:
        kinds = f"{len(forbidden)} of {len(asked)} kinds are forbidden: {', '.join(forbidden)}"
        some = f"{logs} of {len(cluster.bundle.manifest.asked.logs)} logs are forbidden"
        fault(
            seen="; ".join([*([kinds] if forbidden else []), *([some] if logs else [])]),
            means="what they would show is unknown in this run",
            remedy=f"add to the ClusterRole of these credentials the rules {rules}, {THEN}",
            severity=Severity.MINOR,
        )
    if "discovery" in cluster.bundle.manifest.asked.api:
        known(cluster.discovery, "the groups that the API serves")
    for kind, missing in failures.items():
        known(missing, f"the list of {kind}")
    for kind in asked:
        if kind in KINDS:
            known(_whole(cluster, kind), f"the list of {kind}")


def _reading(cluster: Cluster, kind: str) -> object:
    return cluster.items(kind) if kind in KINDS else cluster.bundle.kind(kind)


def _forbidden_logs(cluster: Cluster) -> int:
    """Return how many logs the credentials may not read."""
    missing = cluster.bundle.manifest.missing
    return sum(one.evidence.startswith("logs/") and one.kind is MissingKind.FORBIDDEN for one in missing)


def _is_silent(cluster: Cluster, kind: str, missing: Missing) -> bool:
    """Tell whether the server did not answer for a kind, as the run recorded it; a lost file is another matter."""
    recorded = any(one.evidence == f"api/{kind}" for one in cluster.bundle.manifest.missing)
    return recorded and missing.kind in {MissingKind.TIMEOUT, MissingKind.ERROR}


def _whole(cluster: Cluster, kind: str) -> Missing | Seen[None]:
    """Return what is malformed in a list as missing, seen if nothing is."""
    items = cluster.items(kind)
    if isinstance(items, Seen) and items.value is not None and items.value.bad:
        bad = items.value.bad
        reason = f"{len(bad)} of {len(bad) + len(items.value.good)} are malformed; '{bad[0].name}': {bad[0].reason}"
        return Missing(MissingKind.UNPARSABLE, reason, f"cluster/{kind}.json")
    return Seen(None)
