"""Runtime layer: the CDI specifications can be used, and the engine uses them where it must."""

from typing import NoReturn

from kube_gpucheck.evidence import Node
from kube_gpucheck.evidence.delivery import Mode
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity

GENERATE = "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"


@check("RTM-010", layer=Layer.RUNTIME, severity=Severity.MAJOR, after=("DRV-004", "DRV-007", "RTM-002"))
def check_cdi_specifications_hold(node: Node) -> None:
    """Every CDI specification for NVIDIA kinds parses and names what the host has, and what a pod asked for resolves.

    Paths are compared with those folders of the host that were listed, and with the errors of this node's pods. Where
    the mode makes its devices itself (jit-cdi) or needs none (legacy), no specification is healthy.
    """
    cdi = node.runtime.cdi
    specifications = known(cdi.specifications, "the CDI specifications")
    for one in specifications:
        if one.problem is not None:
            _fault_of(f"{one.path}: {one.problem}", "the specification cannot be read, so its devices are not there")
    for name, paths in known(cdi.twice, "the devices that specifications define"):
        _fault_of(f"{name} is defined in {' and '.join(paths)}", "of two definitions in one folder neither counts")
    unresolved = known(cdi.unresolved, "the CDI devices that pods asked for")
    if unresolved:
        elsewhere = known(cdi.unsearched, "the folders that are searched for specifications")
        kinds = ", ".join(sorted({one.kind for one in specifications})) or "no kind at all"
        if elsewhere:
            _fault_of(
                f"a container failed on {', '.join(unresolved)}; {', '.join(one.path for one in elsewhere)} defines "
                f"{kinds}, and only {', '.join(known(cdi.searched, 'the folders that are searched'))} is searched",
                "the specification lies where whoever injects the devices does not look",
            )
        _fault_of(
            f"a container failed on {', '.join(unresolved)}; the specifications define {kinds}",
            "no specification defines the device that was asked for",
        )
    faults = known(cdi.faults, "whether what the specifications name is there")
    if faults:
        named = "; ".join(f"{one.named.what} {one.named.path}: {one.because}" for one in faults[:5])
        _fault_of(
            f"{faults[0].path} names {named}{_more(len(faults))}",
            "the specification is of another driver, another set of GPUs or another path than the host has",
        )
    if known(node.deliveries.by_handler, "how GPUs reach this node's containers") and not known(
        node.runtime.toolkit_installed, "whether the toolkit is installed"
    ):
        not_applicable("the NVIDIA Container Toolkit is not installed; RTM-002 judges that")
    wanted = known(cdi.wanted, "the CDI kind that this node needs")
    if wanted is not None and all(one.kind != wanted for one in specifications):
        have = ", ".join(one.path for one in specifications) or "/etc/cdi and /var/run/cdi hold none"
        _fault_of(
            f"no specification defines {wanted}, which this node's mode needs: {have}",
            "the specification was never written, or before the driver was ready",
        )


@check("RTM-011", layer=Layer.RUNTIME, severity=Severity.MAJOR, after=("RTM-001",))
def check_engine_injects_cdi_devices(node: Node) -> None:
    """CDI is enabled in the engine wherever GPUs are given out by CDI names.

    That is the case with the device plugin's strategies cdi-cri and cdi-annotations, and with DRA. The toolkit's own
    modes cdi and jit-cdi do not need it.
    """
    declared = known(node.deliveries.declared, "how GPUs reach this node's containers")
    needing = declared & {Mode.CDI_ENGINE, Mode.DRA}
    if not needing:
        not_applicable("nothing that was read gives out GPUs by CDI names on this node")
    if not known(node.runtime.cdi_is_enabled, "whether the engine injects CDI devices"):
        version = known(node.runtime.engine.name, "the engine's version")
        fault(
            seen=f"GPUs are given out by CDI names ({', '.join(sorted(one.value for one in needing))}); "
            f"{version} does not inject them",
            means="containerd 1.6 has no CDI, 1.7 has it off by default: a container starts without its GPU",
            remedy="set enable_cdi = true in the CRI section (containerd 1.7; 2.0 has it on) in "
            f"{node.runtime.engine.editable}, then "
            f"'{node.runtime.engine.restart}'; confirm with 'gpucheck run -k RTM-011'",
        )


def _fault_of(seen: str, means: str) -> NoReturn:
    fault(
        seen=seen,
        means=means,
        remedy=f"run '{GENERATE}' (or restart the toolkit or plugin pod that writes it), then delete the failed pods; "
        "confirm with 'gpucheck run -k RTM-010'",
    )


def _more(count: int) -> str:
    return f"; and {count - 5} more" if count > 5 else ""  # noqa: PLR2004  as many as are shown
