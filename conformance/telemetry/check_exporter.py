"""Telemetry layer: dcgm-exporter runs on each GPU node, there only, and can be scraped."""

from kube_gpucheck.evidence import Cluster, Component, DaemonSet
from kube_gpucheck.evidence.documents import ServiceDocument
from kube_gpucheck.evidence.rollout import Plight, Rollout
from kube_gpucheck.evidence.telemetry import is_found, listen_port, target_port
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Reading, Seen, Severity

SHOWN = 5
_THEN = "then run 'gpucheck run -k TEL-016'"
_MEANS = {
    Plight.LABEL: "its selector needs a label that this GPU node does not have, so nothing measures its GPUs",
    Plight.TAINT: "it does not tolerate the GPU nodes' taint, as its chart's defaults do not",
    Plight.ELSEWHERE: "its template is pinned to one node",
    Plight.NOT_COUNTED: "the DaemonSet controller has not looked at these nodes yet",
    Plight.NOT_CREATED: "the API server refuses its pods",
    Plight.IMAGE: "the node cannot pull its image",
    Plight.NO_HANDLER: "the node's container engine does not know the runtime class's handler",
    Plight.MISMATCH: "the driver's kernel module and its libraries have different versions",
    Plight.ABSENT_TYPE: "the API does not serve what the exporter asks of it",
    Plight.REFUSED: "its service account may not do what it needs to do",
    Plight.OUT_OF_MEMORY: "its memory limit is lower than what DCGM needs for the GPUs of this node",
    Plight.NO_DRIVER: "its container sees no NVIDIA driver: it runs outside NVIDIA's runtime, or the node has none",
    Plight.CREATE: "the container engine cannot create its container",
    Plight.OTHER: "its pods are not well; the last words of their log tell why",
}
_DO = {
    Plight.LABEL: "give the node the label, or let whoever sets it run there (DSC-002)",
    Plight.TAINT: "give it a toleration of the taint with operator Exists",
    Plight.ELSEWHERE: "take nodeName out of its template",
    Plight.NOT_COUNTED: "look whether kube-controller-manager runs",
    Plight.NOT_CREATED: "mend what the event names",
    Plight.IMAGE: "make the image available to the node, or correct its name",
    Plight.NO_HANDLER: "configure the handler in the node's container engine (RTM-003), and restart that (RTM-005)",
    Plight.MISMATCH: "reboot the node, so that the new module is loaded",
    Plight.ABSENT_TYPE: "mend what the log names",
    Plight.REFUSED: "bind its service account to the chart's role in this namespace",
    Plight.OUT_OF_MEMORY: "raise its memory limit: 512 to 750 MiB for one GPU, 1 GiB for eight",
    Plight.CREATE: "mend what the message names",
    Plight.OTHER: "mend what the log names",
}


def _is_exporter(daemonset: DaemonSet) -> Reading[bool]:
    return Seen(daemonset.component is Component.DCGM_EXPORTER)


def _nothing_measures(cluster: Cluster) -> None:
    nodes = cluster.gpu_nodes
    if isinstance(nodes, Seen) and not nodes.value:
        not_applicable("no node shows a sign of an NVIDIA GPU; CLU-003 judges that")
    lone = cluster.telemetry.lone_exporters
    if isinstance(lone, Seen) and lone.value:
        pod = lone.value[0]
        not_applicable(f"dcgm-exporter runs as pod {pod.namespace}/{pod.name}, which belongs to no DaemonSet")
    count = len(known(cluster.daemonsets, "the DaemonSets"))
    fault(
        seen=f"none of {count} DaemonSets is a dcgm-exporter",
        means="nothing measures the GPUs; scheduling and workloads are not affected",
        remedy="install the dcgm-exporter chart beside Prometheus (with 'runtimeClassName: nvidia' where NVIDIA is not "
        "the default runtime), then run 'gpucheck run --layer telemetry'",
        severity=Severity.MINOR,
    )


@check(
    "TEL-001",
    layer=Layer.TELEMETRY,
    severity=Severity.MAJOR,
    after=(
        "RTC-004",
        "RTM-002",
        "RTM-009",
        "RTM-010",
        "RTM-016",
        "DRV-005",
        "DRV-007",
        "CLU-005",
        "TEL-016",
        "PLG-013",
        "OPR-003",
        "CLU-004",
        "DSC-002",
        "RTC-002",
        "RTM-004",
        "RTM-017",
    ),
    among=_is_exporter,
    none_means=_nothing_measures,
)
def check_exporter_runs_on_each_gpu_node(daemonset: DaemonSet) -> None:
    """dcgm-exporter wants one pod for each GPU node, and all are Ready.

    A pod that is Ready now and ended badly twice, the last time within ten minutes, is not well. What it
    serves is TEL-003's. No exporter at all is one minor fault on the cluster.
    """
    if not known(daemonset.cluster.gpu_nodes, "the nodes with a GPU"):
        not_applicable("no node shows a sign of an NVIDIA GPU; CLU-003 judges that")
    rollout = Rollout(daemonset)
    shortfall = known(rollout.shortfall, f"how {daemonset.subject} fares")
    if shortfall is not None:
        step = _give_runtime(daemonset) if shortfall.plight is Plight.NO_DRIVER else _DO[shortfall.plight]
        fault(
            seen=shortfall.facts,
            means=_MEANS[shortfall.plight],
            remedy=f"{step}; once {daemonset.subject} is Ready, run 'gpucheck run -k TEL-001'",
            nodes=known(rollout.lacking_on, f"where {daemonset.subject} lacks a pod"),
        )


def _give_runtime(daemonset: DaemonSet) -> str:
    """Return how the exporter is brought under NVIDIA's runtime. Charts before 3.3.5 have no value for it."""
    name = known(daemonset.object, "the DaemonSet").spec.template.spec.runtime_class_name
    if name is not None:
        return f"look why the runtime class '{name}' brings no driver into the container (RTC-002, RTM-009)"
    patch = '{"spec":{"template":{"spec":{"runtimeClassName":"nvidia"}}}}'
    command = f"kubectl -n {daemonset.namespace} patch daemonset {daemonset.name} -p '{patch}'"
    return f"run {command}, or set the chart's 'runtimeClassName' (from 3.3.5 on)"


@check("TEL-002", layer=Layer.TELEMETRY, severity=Severity.MAJOR, after=("TEL-001",))
def check_service_reaches_the_exporter(cluster: Cluster) -> None:
    """The exporter's Service leads to its port, each ServiceMonitor's port exists, each Ready pod is an endpoint.

    Whether a Prometheus selects the ServiceMonitor is TEL-008's, whether the exporter answers TEL-003's. A
    monitor that goes by targetPort is not judged.
    """
    exporters = known(cluster.stack.exporters, "the dcgm-exporter DaemonSets")
    if not exporters:
        not_applicable("no dcgm-exporter is installed; TEL-001 says so")
    for exporter in exporters:
        services = known(cluster.telemetry.services(exporter), f"the Services of {exporter.subject}")
        if not services:
            fault(
                seen=f"no Service in namespace {exporter.namespace} selects the pods of {exporter.subject}",
                means="what finds its targets by Service (a ServiceMonitor, an annotation) finds no exporter",
                remedy="set the chart's 'service.enable=true', then run 'gpucheck run -k TEL-002'",
                severity=Severity.MINOR,
            )
        for service in services:
            _judge_ports(exporter, service)
            _judge_monitors(cluster, service)
            _judge_endpoints(cluster, exporter, service)


def _name(service: ServiceDocument) -> str:
    return f"Service {service.metadata.namespace}/{service.metadata.name}"


def _judge_ports(exporter: DaemonSet, service: ServiceDocument) -> None:
    listens = known(listen_port(exporter), f"the port on which {exporter.subject} listens")
    ports = service.spec.ports or ()
    targets = [known(target_port(exporter, port), f"where {_name(service)} leads") for port in ports]
    if listens not in targets:
        told = ", ".join(
            f"port {port.port} to {port.target_port if target is None else target}"
            for port, target in zip(ports, targets, strict=True)
        )
        fault(
            seen=f"{_name(service)} leads {told or 'nowhere: it has no port'}; {exporter.subject} listens on {listens}",
            means="no scrape through this Service reaches the exporter",
            remedy=f"set its targetPort to {listens}, then run 'gpucheck run -k TEL-002'",
        )


def _judge_monitors(cluster: Cluster, service: ServiceDocument) -> None:
    for monitor in known(cluster.telemetry.monitors(service), f"the ServiceMonitors of {_name(service)}"):
        for endpoint in monitor.spec.endpoints:
            if not is_found(endpoint, service):
                names = ", ".join(f"'{port.name}'" for port in service.spec.ports or () if port.name) or "no name"
                fault(
                    seen=f"ServiceMonitor {monitor.metadata.namespace}/{monitor.metadata.name} scrapes port "
                    f"'{endpoint.port}'; {_name(service)} names its ports {names}",
                    means="Prometheus finds no target by this ServiceMonitor (the chart names the port 'metrics', the "
                    "operator 'gpu-metrics')",
                    remedy=f"set the ServiceMonitor's port to {names}, then run 'gpucheck run -k TEL-002'",
                )


def _judge_endpoints(cluster: Cluster, exporter: DaemonSet, service: ServiceDocument) -> None:
    pods = known(Rollout(exporter).pods, f"the pods of {exporter.subject}")
    ready = [pod.name for pod in pods if known(pod.is_ready, f"whether pod {pod.name} is Ready")]
    behind = known(cluster.telemetry.ready_pods_behind(service), f"the endpoints of {_name(service)}")
    lost = [name for name in ready if name not in behind]
    if lost or not ready:
        fault(
            seen=f"{_name(service)} has {len(behind)} ready endpoint{'' if len(behind) == 1 else 's'}, "
            f"{exporter.subject} has {len(ready)} Ready of {len(pods)} pods"
            + (f"; not among them: {', '.join(lost[:SHOWN])}" if lost else ""),
            means="the endpoint controller has not taken these pods in"
            if lost
            else "there is nothing behind the Service",
            remedy="compare the Service's selector with the pods' labels, then run 'gpucheck run -k TEL-002'"
            if lost
            else "bring the exporter's pods to be Ready (TEL-001), then run 'gpucheck run -k TEL-002'",
        )


@check("TEL-016", layer=Layer.TELEMETRY, severity=Severity.MAJOR, among=_is_exporter)
def check_exporter_is_wanted_on_gpu_nodes_only(daemonset: DaemonSet) -> None:
    """The exporter is wanted on GPU nodes and only there.

    By its selection and tolerations, not by the pods of the moment. Charts' defaults select nothing and do
    not tolerate the GPU nodes' taint: pods then crash on nodes without a GPU, and are absent from those with one.
    """
    cluster = daemonset.cluster
    gpu_nodes = known(cluster.gpu_nodes, "the nodes with a GPU")
    if not gpu_nodes:
        not_applicable("no node shows a sign of an NVIDIA GPU; CLU-003 judges that")
    rollout = Rollout(daemonset)
    left_out = known(rollout.left_out, f"the GPU nodes on which {daemonset.subject} may run")
    if left_out:
        node, why = left_out[0]
        fault(
            seen=f"{daemonset.subject} leaves out {len(left_out)} of {len(gpu_nodes)} GPU nodes; {node.name}: {why}",
            means="the GPUs of these nodes are not measured",
            remedy=f"give it a toleration of the taint with operator Exists, {_THEN}"
            if why.rule == "taint"
            else f"let it select these nodes (DSC-002 tells what is missing), {_THEN}",
            nodes=(node.name for node, _ in left_out),
        )
    with_gpu = {node.name for node in gpu_nodes}
    wanted = known(rollout.wanted_on, f"the nodes on which {daemonset.subject} may run")
    others = [node.name for node in wanted if node.name not in with_gpu]
    if others:
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        count = len(known(cluster.nodes, "the nodes")) - len(gpu_nodes)
        fault(
            seen=f"{daemonset.subject} is wanted on {len(others)} of {count} nodes without GPU: "
            f"{', '.join(others[:SHOWN])}{more}",
            means="its pods find no driver there, and crash",
            remedy=f"give it an affinity to nvidia.com/gpu.present=true, {_THEN}",
            nodes=others,
        )
