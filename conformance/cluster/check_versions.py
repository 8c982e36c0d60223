"""Cluster layer: server and kubelets are of releases that belong together."""

from kube_gpucheck.evidence import Cluster
from kube_gpucheck.evidence.releases import Release, kubelets
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity

_SHOWN = 5
_OLDER = 3
_OLDER_ONCE = 2
_SINCE: Release = (1, 25)
"""From this kubelet on it may be three minor versions older than the server, before two.

Source: Kubernetes, "Version Skew Policy", kubelet.
"""


@check("CLU-002", layer=Layer.CLUSTER, severity=Severity.MINOR, after=("CLU-001",))
def check_versions_are_within_the_skew(cluster: Cluster) -> None:
    """The server and every kubelet are within Kubernetes' supported version skew.

    No kubelet is newer than the server, and none is more than three minor versions older (two before 1.25). Not judged:
    virtual nodes, which tell the release of a library; what the stack needs of the API, which the rows that need it
    judge by what is served (RTC-001, DSC-010, DRA-001); other servers than the one that answered.
    """
    found = known(kubelets(cluster), "the versions of server and kubelets")
    if found.server is None:
        not_applicable("the server's version is none that can be compared")
    if not found.nodes:
        not_applicable("no node reports a kubelet's version")
    server = found.server
    newer = {release: nodes for release, nodes in found.nodes.items() if release > server}
    older = {release: nodes for release, nodes in found.nodes.items() if _is_too_old(release, server)}
    if newer:
        fault(
            seen=f"the server is {_show(server)}; newer kubelets: {_listed(newer)}",
            means="a kubelet asks a server that is older for what it does not know; the server is upgraded first",
            remedy=f"upgrade the control plane to {_show(max(newer))}, then run 'gpucheck run -k CLU-002'",
            nodes=[node for nodes in newer.values() for node in nodes],
        )
    if older:
        fault(
            seen=f"the server is {_show(server)}; kubelets that are too old for it: {_listed(older)}",
            means="the server no longer supports them: APIs that they use may be gone, and device manager and DRA "
            "behave as they did then",
            remedy="drain and upgrade these nodes one by one, then run 'gpucheck run -k CLU-002'",
            nodes=[node for nodes in older.values() for node in nodes],
        )


def _is_too_old(kubelet: Release, server: Release) -> bool:
    behind = server[1] - kubelet[1]
    return kubelet[0] < server[0] or behind > (_OLDER if kubelet >= _SINCE else _OLDER_ONCE)


def _show(release: Release) -> str:
    return f"v{release[0]}.{release[1]}"


def _listed(releases: dict[Release, tuple[str, ...]]) -> str:
    return "; ".join(f"{_show(release)} on {_some(nodes)}" for release, nodes in releases.items())


def _some(nodes: tuple[str, ...]) -> str:
    more = f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else ""
    return ", ".join(nodes[:_SHOWN]) + more
