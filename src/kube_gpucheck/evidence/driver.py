"""The driver layer of one host: PCI functions, kernel module, libraries, NVML, device nodes, kernel log."""

from kube_gpucheck.evidence.gpu import GpuIdentity
from kube_gpucheck.evidence.host import Host
from kube_gpucheck.evidence.readings import derived


class Driver:
    """What the driver of one host is, and what it sees."""

    def __init__(self, host: Host) -> None:
        """Keep the host."""
        self.host = host

    @derived
    def gpus(self) -> tuple[GpuIdentity, ...]:
        """The union of what the PCI bus and NVML list, in order of PCI address."""
        return ()
