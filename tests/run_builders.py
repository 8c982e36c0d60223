"""Builds runs by hand for the tests of the reports. Reads and judges nothing."""

from collections.abc import Iterable
from typing import Final

from kube_gpucheck.model import (
    EXIT_STATUS,
    THE_CLUSTER,
    Candidate,
    CheckInfo,
    CheckResult,
    DiagnosedCause,
    Diagnosis,
    Finding,
    GpuNodes,
    Judgement,
    Layer,
    MissingEvidence,
    Outcome,
    Run,
    RunInfo,
    Severity,
    Subject,
    SubjectKind,
    judge_run,
)

NODE: Final = Subject(SubjectKind.NODE, "dxlab-nb-00")
DAEMONSET: Final = Subject(SubjectKind.DAEMONSET, "nvdp-nvidia-device-plugin", namespace="nvidia-device-plugin")
HELM_UPGRADE: Final = (
    "helm upgrade nvdp nvdp/nvidia-device-plugin -n nvidia-device-plugin --reuse-values --set gfd.enabled=true"
)


def node(name: str) -> Subject:
    return Subject(SubjectKind.NODE, name)


def check(
    check_id: str,
    layer: Layer = Layer.DEVICE_PLUGIN,
    *,
    title: str = "Capacity is what the hardware and the plugin's effective configuration imply.",
    severity: Severity = Severity.CRITICAL,
    subject: SubjectKind = SubjectKind.NODE,
) -> CheckInfo:
    return CheckInfo(check_id, title, layer, severity, subject)


def fault(
    info: CheckInfo,
    subject: Subject = NODE,
    *,
    seen: str = "capacity is 7, expected 8: 8 GPU x 1",
    means: str = "the device plugin started before the driver listed every GPU",
    remedy: str = "delete the node's device-plugin pod; once it is Ready, run 'gpucheck run -k PLG-005'",
    severity: Severity | None = None,
) -> Judgement:
    return Judgement(info.id, subject, Outcome.FAULT, severity or info.severity, seen=seen, means=means, remedy=remedy)


def other(
    info: CheckInfo,
    outcome: Outcome,
    subject: Subject = NODE,
    *,
    reason: str = "pods is forbidden: User 'dev' cannot list resource 'pods' at the cluster scope",
    option: str | None = None,
) -> Judgement:
    return Judgement(info.id, subject, outcome, info.severity, reason=reason, option=option)


def result(
    info: CheckInfo, *others: Judgement, passed: Iterable[Subject] = (), duration_s: float = 0.012
) -> CheckResult:
    return CheckResult(info, tuple(passed), others, duration_s)


def passing(prefix: str, count: int, layer: Layer, subject: Subject = NODE) -> tuple[CheckResult, ...]:
    return tuple(result(check(f"{prefix}-{n:03}", layer), passed=(subject,)) for n in range(1, count + 1))


def cause(
    cause_id: str = "nfd-label-missing",
    *,
    layer: Layer = Layer.DISCOVERY,
    severity: Severity = Severity.CRITICAL,
    title: str = "No node carries the label that the device plugin's DaemonSet selects.",
    subjects: tuple[Subject, ...] = (DAEMONSET,),
    explains: tuple[str, ...] = ("DSC-001",),
    seen: tuple[str, ...] = ("nvidia-device-plugin/nvdp-nvidia-device-plugin wants 0 pods; 1 node has a GPU",),
    remedy: tuple[str, ...] = ("install Node Feature Discovery",),
    gpu_nodes: tuple[str, ...] = ("dxlab-nb-00",),
) -> DiagnosedCause:
    return DiagnosedCause(
        id=cause_id,
        title=title,
        layer=layer,
        severity=severity,
        subjects=subjects,
        explains=explains,
        seen=seen,
        signs_for=("the DaemonSet wants no pod",),
        signs_against=(),
        remedy=remedy,
        then="gpucheck run --layer discovery --wait 5m",
        interrupts="",
        references=("https://github.com/NVIDIA/k8s-device-plugin/issues/708",),
        gpu_nodes=gpu_nodes,
    )


def findings_of(results: Iterable[CheckResult]) -> tuple[Finding, ...]:
    """Make a finding, without a cause, of every fault and unknown."""
    return tuple(
        Finding(each.info, judgement)
        for each in results
        for judgement in each.others
        if judgement.outcome in {Outcome.FAULT, Outcome.UNKNOWN}
    )


def run_of(
    *results: CheckResult,
    causes: tuple[DiagnosedCause, ...] = (),
    candidates: tuple[Candidate, ...] = (),
    findings: tuple[Finding, ...] | None = None,
    fail_on: Severity = Severity.MAJOR,
    allow_unknown: bool = False,
    nodes: GpuNodes | None = None,
    missing: tuple[MissingEvidence, ...] = (),
    simulated: bool = True,
    where: str = "cluster rke2",
    not_installed: dict[Layer, str] | None = None,
) -> Run:
    """Make a run whose verdict is the model's."""
    verdict = judge_run(results, fail_on=fail_on, allow_unknown=allow_unknown)
    return Run(
        tool_version="0.1.0",
        info=RunInfo(
            id="r-7f3a",
            started="2023-01-27T08:10:00Z",
            finished="2023-01-27T08:10:02Z",
            profile="troubleshoot",
            source="tutorial/06-plugin-undesired",
            simulated=simulated,
            where=where,
            options={"fail-on": fail_on.value},
        ),
        verdict=verdict,
        exit_code=EXIT_STATUS[verdict],
        fail_on=fail_on,
        first_cause=next((one.id for one in causes if one.severity.at_least(fail_on)), None),
        nodes=nodes or GpuNodes(gpu=1, judged=1),
        diagnosis=Diagnosis(causes, candidates, findings_of(results) if findings is None else findings),
        results=results,
        missing=missing,
        layers_not_installed=not_installed or {},
    )


def undesired_plugin() -> Run:
    """Make the run that DESIGN.md shows: no node carries the label that the plugin selects."""
    label = check(
        "DSC-001",
        Layer.DISCOVERY,
        title="Every node with an NVIDIA GPU carries the labels that the GPU stack's DaemonSets select.",
    )
    feature = check("DSC-002", Layer.DISCOVERY, title="Node Feature Discovery runs on every node.")
    desired = check("PLG-001", subject=SubjectKind.DAEMONSET, title="The device plugin is wanted on every GPU node.")
    registered = check("PLG-003", title="A device plugin is registered with the kubelet.")
    capacity = check("PLG-005")
    workload = check("WRK-001", Layer.WORKLOAD, title="A pod that asks for a GPU runs on it.")
    target = check("TEL-002", Layer.TELEMETRY, title="The exporter answers.", subject=SubjectKind.TARGET)
    state = check("OPR-001", Layer.OPERATOR, title="The ClusterPolicy is ready.", subject=SubjectKind.CLUSTER)
    faulty = (
        result(label, fault(label, seen="dxlab-nb-00 has no label feature.node.kubernetes.io/pci-10de.present")),
        result(feature, fault(feature, THE_CLUSTER, seen="no Node Feature Discovery is installed")),
        *passing("DSX", 4, Layer.DISCOVERY),
        result(desired, fault(desired, DAEMONSET, seen="wants 0 pods; 1 node has a GPU")),
        result(registered, fault(registered, seen="no plugin has registered nvidia.com/gpu")),
        result(capacity, fault(capacity, seen="capacity is 0, expected 1: 1 GPU x 1")),
    )
    results = (
        *passing("CLU", 7, Layer.CLUSTER),
        *passing("DRV", 19, Layer.DRIVER),
        *passing("RTM", 11, Layer.RUNTIME),
        *passing("RTC", 4, Layer.RUNTIME_CLASS),
        *faulty,
        result(workload, other(workload, Outcome.NOT_ASKED, reason="needs an active workload", option="--active")),
        result(target, other(target, Outcome.NOT_APPLICABLE, THE_CLUSTER, reason="no exporter is installed")),
        result(state, other(state, Outcome.NOT_APPLICABLE, THE_CLUSTER, reason="no ClusterPolicy")),
    )
    findings = tuple(
        Finding(
            finding.check,
            finding.judgement,
            cause="nfd-label-missing",
            consequence_of=() if finding.check.layer is Layer.DISCOVERY else ("DSC-001",),
        )
        for finding in findings_of(results)
    )
    first = cause(
        seen=(
            "nvidia-device-plugin/nvdp-nvidia-device-plugin wants 0 pods; 1 node has a GPU",
            "its affinity needs feature.node.kubernetes.io/pci-10de.present=true; dxlab-nb-00 has no such label",
            "no Node Feature Discovery is installed",
        ),
        remedy=(HELM_UPGRADE,),
        explains=("DSC-001", "DSC-002", "PLG-001", "PLG-003", "PLG-005"),
    )
    return run_of(
        *results,
        causes=(first,),
        findings=findings,
        not_installed={
            Layer.TELEMETRY: "no dcgm-exporter, no ServiceMonitor, no Prometheus",
            Layer.OPERATOR: "no ClusterPolicy",
        },
    )
