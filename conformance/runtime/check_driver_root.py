"""Runtime layer: the toolkit looks for the driver where the driver is."""

from kube_gpucheck.evidence import Node
from kube_gpucheck.evidence.delivery import Mode
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity

ELSEWHERE = frozenset({Mode.PROVIDER, Mode.VM_PASSTHROUGH, Mode.VM_VGPU})
LIBRARIES = ("libnvidia-ml.so.1", "libcuda.so.1")


@check("RTM-009", layer=Layer.RUNTIME, severity=Severity.CRITICAL, after=("RTM-016",))
def check_libraries_are_found_where_the_toolkit_looks(node: Node) -> None:
    """libnvidia-ml.so.1 and libcuda.so.1 are found in the driver root and loader cache that the toolkit uses.

    Root `/` is judged by the loader's cache, another root by its library folders. Versions are DRV-004's.
    """
    declared = known(node.deliveries.declared, "how GPUs reach this node's containers")
    if declared & ELSEWHERE:
        not_applicable(f"the toolkit has no part in it: {', '.join(sorted(one.value for one in declared))}")
    root = known(node.runtime.driver_root, "the driver root")
    missing = [name for name in LIBRARIES if known(node.runtime.library(name), f"where {name} is found") is None]
    if missing:
        place = "where the loader's cache (ldconfig -p) leads" if root == "/" else f"in the library folders of {root}"
        fault(
            seen=f"no {' and no '.join(missing)} {place}",
            means="the toolkit finds no driver to give to a container: its libraries are not installed, or lie in a "
            "folder that is not searched",
            remedy="install the driver's libraries of the loaded module's version, or name their folder in "
            "/etc/ld.so.conf.d and run 'ldconfig'; confirm with 'gpucheck run -k RTM-009'",
        )


@check("RTM-016", layer=Layer.RUNTIME, severity=Severity.CRITICAL)
def check_one_driver_root(node: Node) -> None:
    """Driver root and dev root agree in operator, toolkit, plugin and DRA plugin.

    Compared are those that say one, the toolkit's (where it is installed) and the driver container's. What lies in
    the root is RTM-009's.
    """
    declared = known(node.deliveries.declared, "how GPUs reach this node's containers")
    if declared & ELSEWHERE:
        not_applicable(f"the toolkit has no part in it: {', '.join(sorted(one.value for one in declared))}")
    for what, roots in (
        ("driver root", known(node.runtime.driver_roots, "the driver roots")),
        ("dev root", known(node.runtime.dev_roots, "the dev roots")),
    ):
        if len({root.rstrip("/") for _, root in roots}) > 1:
            fault(
                seen=f"{what}: " + ", ".join(f"{who} uses '{root}'" for who, root in roots),
                means="one of them looks for the driver where it is not",
                remedy="set one root everywhere: '/' for a driver on the host, '/run/nvidia/driver' for a driver "
                "container, '/home/kubernetes/bin/nvidia' on GKE; confirm with 'gpucheck run -k RTM-016'",
            )
    if not known(node.runtime.driver_roots, "the driver roots"):
        not_applicable("nothing on this node says where the driver is, and the toolkit is not installed")
