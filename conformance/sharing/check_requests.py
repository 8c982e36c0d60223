"""Sharing layer: pods ask for resources that exist, and for as many as sharing allows."""

from kube_gpucheck.evidence import Pod, workload
from kube_gpucheck.evidence.allocation import refused_request, unserved_request
from kube_gpucheck.evidence.partition import kinds_that_hide_each_other
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity


@check(
    "SHR-007",
    layer=Layer.SHARING,
    severity=Severity.MAJOR,
    after=("PLG-005", "SHR-001"),
    among=workload.asks_or_was_refused,
)
def check_request_fits_the_sharing_rules(pod: Pod) -> None:
    """The pod asks for resource names that some node serves, and for no more of a shared one than its rules allow.

    Of MIG devices a container asks for one kind, where they are handed over by a variable. Where no node serves any GPU
    resource, a usual name is not judged: PLG-005 is. More than any node has is PLG-008's.
    """
    unserved = known(unserved_request(pod), "what the nodes serve")
    if unserved is not None and unserved.not_yet:
        not_applicable(f"{unserved.served}; PLG-005 judges that")
    if unserved is not None:
        fault(
            seen=f"the pod asks for {unserved.resource}; {unserved.served}",
            means="no node serves a resource of this name, so the pod waits for ever: the name is misspelled, or the "
            "GPUs are offered under another (sharing, MIG)",
            remedy="ask for a name that a node serves, or change the plugin's configuration; then run 'gpucheck run "
            "-k SHR-007'",
        )
    refused = known(refused_request(pod), "the sharing rules of the nodes")
    if refused is not None:
        fault(
            seen=f"{refused}",
            means="the plugin refuses the container at admission: more than one share gives no more of a GPU",
            remedy="ask for exactly 1, or for unshared GPUs (time-slicing: or set failRequestsGreaterThanOne to "
            "false); then run 'gpucheck run -k SHR-007'",
        )
    kinds = known(kinds_that_hide_each_other(pod), "how the device plugin hands over what it grants")
    if kinds is not None:
        fault(
            seen=f"{kinds}; the device plugin on {pod.node_name} hands devices over by an environment variable alone",
            means="each resource sets the same variable, so the container sees one kind of the devices that it holds",
            remedy="ask for one kind in each container, or set the device plugin's DEVICE_LIST_STRATEGY to "
            "volume-mounts or cdi-cri; then run 'gpucheck run -k SHR-007'",
        )
