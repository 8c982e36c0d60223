"""RuntimeClass layer: pods can name the NVIDIA runtime."""

from kube_gpucheck.evidence import Cluster
from kube_gpucheck.judging import check, fault, known
from kube_gpucheck.model import Layer, Severity


@check("RTC-001", layer=Layer.RUNTIME_CLASS, severity=Severity.CRITICAL)
def check_runtime_class_for_nvidia(cluster: Cluster) -> None:
    """A RuntimeClass whose handler is the NVIDIA handler exists, or NVIDIA is the default runtime on every GPU node."""
    classes = known(cluster.runtime_classes, "the RuntimeClasses")
    if not any("nvidia" in one.handler for one in classes):
        fault(
            seen=f"no RuntimeClass has an NVIDIA handler; there are {len(classes)} RuntimeClasses",
            means="a pod cannot ask for the NVIDIA runtime",
            remedy="run 'kubectl apply -f -' with a RuntimeClass 'nvidia' whose handler is 'nvidia', then 'gpucheck run -k RTC-001'",
        )
