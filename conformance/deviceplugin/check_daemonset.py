"""Device-plugin layer: the DaemonSets of the GPU stack get their pods, on the right nodes, and these stay well."""

from typing import Final

from kube_gpucheck.evidence import Component, DaemonSet, coverage, kubeletroot, podstate
from kube_gpucheck.evidence.rollout import lingering
from kube_gpucheck.judging import Threshold, check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity

RESTARTS = Threshold(
    "PLG-003-restarts", 2, "restarts", "one restart is what an update of driver or toolkit leaves behind"
)
_DESCRIBES: Final = frozenset(
    {Component.GFD, Component.NFD_WORKER, Component.DCGM, Component.DCGM_EXPORTER, Component.NODE_STATUS_EXPORTER}
)
RECENT = Threshold("PLG-003-recent", 600, "s", "twice the longest pause of the kubelet between restarts (300 s)")


@check(
    "PLG-002",
    layer=Layer.DEVICE_PLUGIN,
    severity=Severity.CRITICAL,
    after=("PLG-001", "DSC-002", "CLU-004", "CLU-005", "OPR-007"),
    among=coverage.is_device_plugin,
)
def check_plugin_is_wanted_on_each_gpu_node(daemonset: DaemonSet) -> None:
    """The device plugin wants one pod for each GPU node.

    A node that another device plugin or DRA serves, or from which a person keeps it away by label, does not count.
    """
    nodes = known(daemonset.cluster.gpu_nodes, "the nodes with a GPU")
    if not nodes:
        not_applicable("no node carries a sign of an NVIDIA GPU; CLU-003 judges that")
    wanted = known(daemonset.object, "the DaemonSet").status.desired_number_scheduled
    missed = known(coverage.uncovered(daemonset), "which GPU nodes it may run on")
    missed = tuple(one for one in missed if not one.is_condition or wanted < len(nodes))
    if missed:
        fault(
            seen=f"{daemonset.subject} wants {_counted(wanted, 'pod')} for {_counted(len(nodes), 'GPU node')}; "
            f"{'; '.join(f'on {one.node} {one.reason}' for one in missed[:5])}",
            means=_meaning(missed[0]),
            remedy=_mend(daemonset, missed[0]),
            nodes=(one.node for one in missed),
        )
    if wanted < known(coverage.covered_count(daemonset), "which GPU nodes it may run on"):
        fault(
            seen=f"{daemonset.subject} wants {_counted(wanted, 'pod')} for {_counted(len(nodes), 'GPU node')}; "
            "neither its selector nor a "
            "taint excludes one",
            means="the DaemonSet controller has not looked at these nodes yet",
            remedy="look whether kube-controller-manager runs, then run 'gpucheck run -k PLG-002' again",
        )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _meaning(one: coverage.Uncovered) -> str:
    if one.is_condition:
        return f"a condition of {one.node} keeps the plugin's pod away until the node is well again"
    if one.rule == "taint":
        return f"{one.node} repels pods by a taint that the plugin does not tolerate"
    return f"{one.node} lacks what the DaemonSet selects by"


def _mend(daemonset: DaemonSet, one: coverage.Uncovered) -> str:
    then = "then run 'gpucheck run -k PLG-002'"
    if one.is_condition:
        return f"mend the condition of {one.node} (CLU-004), {then}"
    if one.rule == "taint":
        return (
            f"add a toleration for '{one.keys[0]}' to {daemonset.subject} (the chart's and the operator's value "
            f"'tolerations'), {then}"
        )
    if any(key.startswith("feature.node.kubernetes.io/") for key in one.keys):
        return (
            "install Node Feature Discovery, which sets the label (the plugin's chart: --set gfd.enabled=true; "
            f"the operator: nfd.enabled=true), {then}"
        )
    return (
        f"label the node as the DaemonSet selects ('kubectl label node {one.node} {one.keys[0]}=…'), or correct "
        f"its selection, {then}"
    )


@check(
    "PLG-003",
    layer=Layer.DEVICE_PLUGIN,
    severity=Severity.CRITICAL,
    after=(
        "PLG-002",
        "PLG-013",
        "CLU-004",
        "RTC-004",
        "RTC-002",
        "RTM-002",
        "RTM-004",
        "RTM-009",
        "RTM-010",
        "RTM-016",
        "RTM-017",
        "DRV-005",
        "DRV-007",
        "SHR-001",
        "OPR-003",
    ),
    among=coverage.is_device_plugin,
)
def check_plugin_pods_are_ready(daemonset: DaemonSet) -> None:
    """All pods of the device plugin are Ready and not restarting.

    A pod that is Ready and serves nothing is PLG-004's.
    """
    wanted = known(daemonset.object, "the DaemonSet").status.desired_number_scheduled
    if not wanted:
        if known(coverage.uncovered(daemonset), "which GPU nodes it may run on"):
            fault(
                seen=f"{daemonset.subject} wants 0 pods, so none is Ready",
                means="it selects no node; PLG-002 names the term",
                remedy="mend what PLG-002 names, then run 'gpucheck run -k PLG-003'",
            )
        not_applicable("it wants no pod, and every GPU node is served by another")
    pods = known(podstate.live_pods(daemonset), "its pods")
    unready = [pod for pod in pods if not known(pod.is_ready, "whether the pod is Ready")]
    for pod in unready:
        facts = known(podstate.troubles(pod), "the pod's state")
        fault(
            seen=f"{pod.namespace}/{pod.name} on {pod.node_name} is not Ready: "
            f"{'; '.join(facts) or 'its status gives no reason'}",
            means="without it the node's GPUs are not offered",
            remedy=f"mend what its status or log names, then run 'kubectl -n {pod.namespace} delete pod "
            f"{pod.name}' and 'gpucheck run -k PLG-003'",
            nodes=(one.node_name for one in unready),
        )
    if len(pods) < wanted:
        _judge_lingering(daemonset)
        fault(
            seen=f"{daemonset.subject} wants {_counted(wanted, 'pod')} and has {len(pods)}",
            means="its pods are not created, or have just been deleted; PLG-013 names a refusal",
            remedy=f"run 'kubectl -n {daemonset.namespace} describe daemonset {daemonset.name}' for the reason, mend "
            "it, then run 'gpucheck run -k PLG-003'",
        )
    for pod in pods:
        restarts = known(podstate.recent_restarts(pod, RECENT.value), "the pod's restarts")
        if restarts >= RESTARTS.value:
            facts = known(podstate.troubles(pod), "the pod's state")
            fault(
                seen=f"{pod.namespace}/{pod.name} is Ready and has restarted {restarts} times, the last time within "
                f"{RECENT.value:.0f} s: {'; '.join(facts)}",
                means="each restart takes the node's GPUs away for a while",
                remedy=f"run 'kubectl -n {pod.namespace} logs {pod.name} --previous' for the reason, mend it, then "
                "run 'gpucheck run -k PLG-003'",
                severity=Severity.MAJOR,
                nodes=(pod.node_name,),
            )


def _judge_lingering(daemonset: DaemonSet) -> None:
    """Fault where a pod that should be gone keeps the controller from making another."""
    pods = [pod for pod in known(daemonset.pods, "its pods") if known(pod.overdue, "when the pod was deleted")]
    for pod in pods:
        fault(
            seen=f"{pod.namespace}/{pod.name} on {pod.node_name} is {lingering(pod)}",
            means="the DaemonSet gets no other pod there before its kubelet has ended this one",
            remedy=f"look at the pod's events and finalizers, and at kubelet and engine of {pod.node_name} (CLU-004, "
            f"RTM-017); where its containers are gone, run 'kubectl -n {pod.namespace} delete pod {pod.name} "
            "--grace-period=0 --force' and 'gpucheck run -k PLG-003'",
            nodes=(one.node_name for one in pods),
        )


@check("PLG-013", layer=Layer.DEVICE_PLUGIN, severity=Severity.CRITICAL, after=("CLU-001", "RTC-001"))
def check_gpu_daemonset_can_make_pods(daemonset: DaemonSet) -> None:
    """The GPU DaemonSet can create and start its pods: nothing refuses them, and their images can be pulled.

    Where all wanted pods exist, an old refusal does not count. Pods that start and then fail are PLG-003's, DSC-003's
    and TEL-001's.
    """
    status = known(daemonset.object, "the DaemonSet").status
    if not status.desired_number_scheduled:
        not_applicable("it wants no pod; PLG-002, DSC-003 or TEL-001 judge that")
    if status.current_number_scheduled < status.desired_number_scheduled:
        refused = known(podstate.refused_creation(daemonset), "the events about the DaemonSet")
        if refused is not None:
            fault(
                seen=f"{daemonset.subject} wants {_counted(status.desired_number_scheduled, 'pod')} and has "
                f"{status.current_number_scheduled}: {refused}",
                means=_refusal(refused),
                remedy=_allow(daemonset, refused),
                severity=_weight(daemonset),
            )
    waiting = [
        (pod, missing)
        for pod in known(podstate.live_pods(daemonset), "its pods")
        if (missing := known(podstate.unpulled(pod), "the images that the pod waits for")) is not None
    ]
    for pod, missing in waiting:
        fault(
            seen=f"{pod.namespace}/{pod.name} on {pod.node_name}: {missing}",
            means="the image's name or tag is wrong, or the node cannot reach or may not use its registry",
            remedy="correct image and tag, mirror the image, or add the pull secret to the service account; then "
            "run 'gpucheck run -k PLG-013'",
            severity=_weight(daemonset),
            nodes=(one.node_name for one, _ in waiting),
        )


def _weight(daemonset: DaemonSet) -> Severity:
    """Return how grave it is that a DaemonSet has no pods: GPUs are served without those that only describe them."""
    return Severity.MAJOR if daemonset.component in _DESCRIBES else Severity.CRITICAL


def _refusal(message: str) -> str:
    if "RuntimeClass" in message:
        return "the RuntimeClass that its pods name does not exist"
    if "PodSecurity" in message or "security context constraint" in message:
        return "an admission policy of the namespace forbids pods with these privileges"
    if "quota" in message:
        return "a quota forbids its pods, as a rule that on priority classes"
    if "webhook" in message:
        return "an admission webhook refuses its pods or does not answer"
    return "the API server refuses its pods"


def _allow(daemonset: DaemonSet, message: str) -> str:
    then = "then run 'gpucheck run -k PLG-013'"
    if "RuntimeClass" in message:
        return (
            "make the RuntimeClass that the message names, with the handler of the NVIDIA runtime, or take "
            f"runtimeClassName off where NVIDIA is the default, {then}"
        )
    if "PodSecurity" in message:
        return (
            f"run 'kubectl label namespace {daemonset.namespace} pod-security.kubernetes.io/enforce=privileged "
            f"--overwrite', {then}"
        )
    if "security context constraint" in message:
        return f"grant the privileged SCC to the DaemonSet's service account in {daemonset.namespace}, {then}"
    if "quota" in message:
        return (
            f"make a ResourceQuota in {daemonset.namespace} that admits the pods' priority class (or enlarge the "
            f"one named), {then}"
        )
    return f"mend what the message names, {then}"


@check("PLG-014", layer=Layer.DEVICE_PLUGIN, severity=Severity.CRITICAL, among=kubeletroot.reads_kubelet)
def check_host_paths_lie_under_the_kubelets_root(daemonset: DaemonSet) -> None:
    """The hostPaths of plugin, exporter and DRA plugin lie under the kubelet's real root.

    A component that mounts no folder of the kubelet is not judged here.
    """
    nodes = known(kubeletroot.wanted_nodes(daemonset), "the nodes that it runs on")
    if not nodes:
        not_applicable("it runs on no GPU node")
    for node in nodes:
        wrong = known(kubeletroot.misplaced(daemonset, node), f"the kubelet's root folder on {node.name}")
        if wrong is not None:
            fault(
                seen=f"{daemonset.subject} mounts {wrong.path}; on {node.name} {wrong.found}",
                means="the component and the kubelet look at different folders, so nothing registers and no pod is "
                "found",
                remedy="set the hostPath to the folder that holds kubelet.sock (k0s: /var/lib/k0s/kubelet, MicroK8s: "
                "/var/snap/microk8s/common/var/lib/kubelet, "
                "else the kubelet's --root-dir), then run 'gpucheck run -k PLG-014'",
            )
