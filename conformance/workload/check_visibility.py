"""Workload layer: GPUs are seen by those who asked for them."""

from kube_gpucheck.evidence import Pod, workload
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity


@check("WRK-014", layer=Layer.WORKLOAD, severity=Severity.MAJOR, among=workload.may_see_gpus)
def check_no_pod_sees_gpus_unasked(pod: Pod) -> None:
    """No pod outside the GPU stack sees GPUs that it did not ask for.

    Seen from its specification (NVIDIA_VISIBLE_DEVICES under NVIDIA's handler), its log, or its create error;
    /proc/driver/nvidia proves nothing. A pod that has ended counts too. A container that asks for GPUs and sets the
    variable besides is not judged.
    """
    sight = known(workload.sight(pod), "what the pod sees")
    if sight is not None:
        fault(
            seen=f"on {pod.node_name}: {sight}",
            means="the pod uses GPUs past the scheduler, which may give the same ones to others",
            remedy="ask for nvidia.com/gpu in its limits, or set NVIDIA_VISIBLE_DEVICES=void; to forbid it for all, "
            "set accept-nvidia-visible-devices-envvar-when-unprivileged "
            "= false in the toolkit's config.toml with the plugin's strategy volume-mounts or CDI; then run "
            "'gpucheck run -k WRK-014'",
        )
    if not known(workload.has_run(pod), "whether the pod has run"):
        not_applicable("none of its containers has run yet")
