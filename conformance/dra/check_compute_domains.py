"""DRA layer: ComputeDomains come together, and their nodes have what IMEX needs."""

from collections.abc import Iterable

from kube_gpucheck.evidence import Cluster, Node, computedomain
from kube_gpucheck.evidence.computedomain import Domain
from kube_gpucheck.judging import Threshold, check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity

GRACE = Threshold("DRA-005-grace", 300, "s", "a daemon's pod is placed, its image is pulled, and its peers are found")
_THEN = "then run 'gpucheck run -k DRA-005'"


@check("DRA-005", layer=Layer.DRA, severity=Severity.MAJOR, after=("DRA-001", "DRA-003"))
def check_compute_domains_are_ready(cluster: Cluster) -> None:
    """Each ComputeDomain is Ready with all its nodes, whose hosts leave IMEX to it and have its channels.

    A domain that no pod uses yet has no nodes, and is well. Nodes of different NVLink partitions in one domain, and
    two domains in one partition, are minor findings.
    """
    domains = known(cluster.compute_domains.domains, "the ComputeDomains")
    if not domains:
        not_applicable("there is no ComputeDomain")
    members = tuple(dict.fromkeys(member.node for one in domains for member in one.members))
    nodes = known(cluster.nodes_by_name, "the nodes")
    _judge_hosts([nodes[name] for name in members if name in nodes])
    for domain in domains:
        _judge_domain(cluster, domain)
    _judge_partitions(cluster, domains)


def _judge_hosts(nodes: Iterable[Node]) -> None:
    running, lacking = [], []
    for node in nodes:
        by_driver = known(computedomain.manages_imex(node), "the node's pods")
        if by_driver and known(computedomain.host_imex_runs(node), "the node's services"):
            running.append(node.name)
        if known(computedomain.lacks_channels(node), "the devices that the kernel has registered"):
            lacking.append(node.name)
    if running:
        fault(
            seen=f"the service nvidia-imex runs on {', '.join(running[:5])}, where the DRA driver runs IMEX itself",
            means="the host's daemon holds the port and the channels that the domain's daemon wants",
            remedy=f"run 'systemctl disable --now nvidia-imex' and 'systemctl mask nvidia-imex' on the node, {_THEN}",
            nodes=running,
        )
    if lacking:
        fault(
            seen=f"/proc/devices of {', '.join(lacking[:5])} has no nvidia-caps-imex-channels",
            means="the loaded driver offers no IMEX channels, so no container can be given one",
            remedy=f"load a driver that has them (ComputeDomains need 570.158.01 or later); {_THEN}",
            nodes=lacking,
        )


def _judge_domain(cluster: Cluster, domain: Domain) -> None:
    if domain.age_s < GRACE.value:
        return
    unready = [one.node for one in domain.members if not one.is_ready]
    if unready:
        fault(
            seen=f"ComputeDomain {domain.name}: {len(unready)} of {len(domain.members)} nodes are not Ready: "
            f"{', '.join(unready[:5])}",
            means="the domain's IMEX daemon on these nodes does not run or does not reach the others",
            remedy=f"read the log of the compute-domain-daemon pod on the node, and mend what it names; {_THEN}",
            nodes=unready,
        )
    joined = {one.node for one in domain.members}
    outside = [(pod, node) for pod, node, age in domain.users if node not in joined and age >= GRACE.value]
    if outside:
        pod, node = outside[0]
        fault(
            seen=f"ComputeDomain {domain.name}: {pod} is bound to {node}, which is not among its nodes "
            f"({', '.join(sorted(joined)[:5]) or 'none'})",
            means="no IMEX daemon of the domain has come up on the node, so the pod waits for its channel",
            remedy=f"look at the pods of the domain's DaemonSet on {node} and at the log of the kubelet plugin's "
            f"container 'compute-domains' there; {_THEN}",
            nodes=(where for _, where in outside),
        )
    if domain.users and not domain.is_ready and max(age for _, _, age in domain.users) >= GRACE.value:
        fault(
            seen=f"ComputeDomain {domain.name} is not Ready: {len(domain.members)} of {domain.wanted} nodes are there",
            means="fewer pods that use it were placed than the domain is to have nodes"
            if len(domain.members) < domain.wanted
            else "its nodes are Ready, and the driver's controller has not said so",
            remedy="start as many workers as spec.numNodes says, or lower it; look whether the driver's controller "
            f"runs; {_THEN}",
        )
    for member in domain.members:
        label = known(cluster.compute_domains.other_clique(member), "the node's labels")
        if label is not None:
            fault(
                seen=f"ComputeDomain {domain.name} has {member.node} in the NVLink partition {member.clique}, and the "
                f"node's label nvidia.com/gpu.clique is {label}",
                means="the node was moved to another partition after the domain or the label was made",
                remedy=f"delete the domain's daemon pod and the GFD pod on {member.node}, {_THEN}",
                nodes=(member.node,),
            )


def _judge_partitions(cluster: Cluster, domains: tuple[Domain, ...]) -> None:
    for clique, names in known(cluster.compute_domains.shared_cliques, "the ComputeDomains").items():
        fault(
            seen=f"ComputeDomains {' and '.join(names)} have nodes in one NVLink partition, {clique}",
            means="two sets of IMEX daemons set the rights of one fabric: mappings of memory may fail now and then",
            remedy="use one ComputeDomain for each partition, or set NCCL_MNNVL_ENABLE=0 in the jobs that need no "
            f"memory of other nodes; {_THEN}",
            severity=Severity.MINOR,
        )
    for domain in domains:
        cliques = sorted({one.clique for one in domain.members})
        if len(cliques) > 1:
            fault(
                seen=f"ComputeDomain {domain.name} has nodes of {len(cliques)} NVLink partitions: "
                f"{', '.join(repr(one) for one in cliques[:5])}",
                means="memory is shared inside each partition alone, and over the network between them",
                remedy=f"place the job's pods in one partition (by the label nvidia.com/gpu.clique), {_THEN}",
                severity=Severity.MINOR,
            )
