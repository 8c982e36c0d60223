"""Cluster layer: the clocks of nodes and server agree."""

from kube_gpucheck.evidence import Node
from kube_gpucheck.judging import Threshold, check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity

SKEW = Threshold(
    "CLU-006-skew",
    60,
    "s",
    "a kubelet renews every 10 s, and Ready turns Unknown after 40 s to 50 s: by a right clock no lease is older",
)
_STOPPED_S = 300
"""From here on CLU-009 says that the kubelet has stopped."""


@check("CLU-006", layer=Layer.CLUSTER, severity=Severity.MINOR, after=("CLU-004",))
def check_clocks_agree(node: Node) -> None:
    """The node's clock, its lease's renew time and the collector's clock agree to within 60 s.

    The kubelet writes the lease by the node's clock. It is compared with the server's clock when the run began, and
    with what most leases say, so that a long run makes no difference. A lease that is older than 300 s is CLU-009's.
    """
    document = known(node.object, "the node")
    lease = known(node.lease, "the node's lease")
    if lease is None or lease.spec.renew_time is None:
        not_applicable("the node has no lease yet; CLU-009 judges its heartbeat")
    ready = next((one.status for one in document.status.conditions if one.type == "Ready"), "")
    if ready != "True":
        not_applicable("the node is not Ready, so its lease may be old; CLU-004 judges that")
    renewed, began = lease.spec.renew_time, node.cluster.gathered_at
    usual = known(node.cluster.usual_heartbeat, "the nodes' leases") or began
    ahead = (renewed - max(began, usual)).total_seconds()
    behind = (min(began, usual) - renewed).total_seconds()
    if ahead > SKEW.value:
        fault(
            seen=f"{node.name} renewed its lease at {renewed:%H:%M:%SZ}, {ahead:.0f} s after the "
            f"{'server' if usual <= began else 'usual'} clock's {max(began, usual):%H:%M:%SZ} (limit {SKEW.value:g} s)",
            means="the node's clock is ahead: certificates and tokens fail, logs and metrics stand at the wrong time",
            remedy=f"set the clock on {node.name} ('timedatectl', 'chronyc tracking'), then run 'gpucheck run "
            "-k CLU-006'",
        )
    if behind > _STOPPED_S:
        not_applicable(f"its lease is {behind:.0f} s old; CLU-009 judges whether the kubelet still reports")
    if behind > SKEW.value:
        fault(
            seen=f"{node.name} is Ready and renewed its lease at {renewed:%H:%M:%SZ}, {behind:.0f} s before "
            f"{min(began, usual):%H:%M:%SZ} (limit {SKEW.value:g} s)",
            means="the node's clock is behind; had its kubelet stopped, Ready would turn Unknown within a minute",
            remedy=f"look at Ready again, set the clock on {node.name} ('timedatectl', 'chronyc tracking'), then run "
            "'gpucheck run -k CLU-006'",
        )
