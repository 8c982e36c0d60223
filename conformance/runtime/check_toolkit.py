"""Runtime layer: the NVIDIA Container Toolkit is there, and its configuration can hold."""

from kube_gpucheck.evidence import Node
from kube_gpucheck.evidence.delivery import Mode
from kube_gpucheck.evidence.engine import EngineKind
from kube_gpucheck.evidence.toolkit import CLI, HOOK, RUNTIME, ToolkitMode
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity


@check("RTM-002", layer=Layer.RUNTIME, severity=Severity.CRITICAL)
def check_parts_of_the_toolkit_that_this_mode_needs(node: Node) -> None:
    """The parts of the NVIDIA Container Toolkit that this node's mode needs are there.

    Legacy mode needs the hook and nvidia-container-cli (package libnvidia-container-tools); jit-cdi, cdi and csv need
    neither. Whether the engine calls the toolkit is RTM-003's and RTM-004's.
    """
    declared = known(node.deliveries.declared, "how GPUs reach this node's containers")
    injected = known(node.deliveries.by_handler, "how GPUs reach this node's containers")
    if not injected and not declared & {Mode.OCI_HOOK, Mode.NRI}:
        not_applicable(f"this node's containers get their GPUs without the toolkit: {_names(declared)}")
    known(node.runtime.engine.kind, "which engine it is")  # a host without one needs no toolkit
    toolkit = node.runtime.toolkit
    where = known(toolkit.runtime_path, "where nvidia-container-runtime is")
    if where is None:
        if known(node.deliveries.toolkit_waits, "what the GPU Operator's toolkit does"):
            not_applicable("the GPU Operator's toolkit waits for the driver here; OPR-001 and DRV-003 judge that")
        fault(
            seen=f"{RUNTIME} is neither in /usr/bin nor in any other folder that was looked at",
            means="the NVIDIA Container Toolkit is not installed, so no container can be given the GPU",
            remedy="install the package nvidia-container-toolkit from NVIDIA's repository; then "
            f"{node.runtime.engine.configure}; confirm with 'gpucheck run -k RTM-002'",
        )
    hook = known(toolkit.find(HOOK, "/usr/bin/nvidia-container-toolkit"), "whether the hook is there")
    cli = known(toolkit.cli_path, "whether nvidia-container-cli is there")
    missing = [name for name, path in ((HOOK, hook), (CLI, cli)) if path is None]
    if not missing or (not injected and Mode.OCI_HOOK not in declared):
        return
    mode = ToolkitMode.LEGACY if not injected else known(toolkit.mode, "the mode of the NVIDIA runtime")
    if mode is ToolkitMode.LEGACY:
        fault(
            seen=f"the NVIDIA runtime works in mode legacy; {' and '.join(missing)} is not there, {where} is",
            means="the toolkit is installed in part: a container fails as soon as the hook calls what is missing",
            remedy="install libnvidia-container-tools and nvidia-container-toolkit at one version (or set "
            "nvidia-container-runtime.mode=auto on toolkit 1.18 or later); confirm with 'gpucheck run -k RTM-002'",
        )


@check("RTM-008", layer=Layer.RUNTIME, severity=Severity.MAJOR, after=("RTM-002",))
def check_toolkit_configuration_can_hold(node: Node) -> None:
    """The toolkit's config.toml parses, and its mode, driver root, ldconfig path and cgroup setting can hold.

    The ldconfig path is judged in legacy mode alone, which runs it. Whether the driver's libraries lie in the root is
    RTM-009's.
    """
    toolkit = node.runtime.toolkit
    problem = known(toolkit.problem, "whether the toolkit's config.toml parses")
    if problem is not None:
        fault(
            seen=problem,
            means="the NVIDIA runtime cannot read its configuration and refuses every container",
            remedy="mend the line, or write the file anew with "
            "'nvidia-ctk config --output=/etc/nvidia-container-runtime/config.toml'; confirm with "
            "'gpucheck run -k RTM-008'",
        )
    found = known(toolkit.configuration, "the toolkit's config.toml")
    if found is None:
        not_applicable("the toolkit has no config.toml: its built-in defaults hold")
    if found.no_cgroups:
        fault(
            seen=f"{found.path}: no-cgroups = true",
            means="the toolkit does not open the container's device cgroup, which is right for rootless engines alone",
            remedy="run 'nvidia-ctk config --in-place --set nvidia-container-cli.no-cgroups=false', recreate the pods; "
            "confirm with 'gpucheck run -k RTM-008'",
        )
    _judge_mode(node, found.mode, found.path)
    if known(node.runtime.engine.kind, "which engine it is") is EngineKind.CRI_O and found.runtimes is not None:
        default = known(node.runtime.configuration, "CRI-O's configuration").default
        if default not in {one.rpartition("/")[2] for one in found.runtimes}:
            fault(
                seen=f"{found.path}: runtimes = {', '.join(found.runtimes)}; CRI-O's own runtime here is '{default}'",
                means="the NVIDIA runtime calls another low-level runtime than CRI-O brings, or finds none",
                remedy=f"put the path of '{default}' first in nvidia-container-runtime.runtimes, then "
                f"'{node.runtime.engine.restart}'; confirm with 'gpucheck run -k RTM-008'",
            )
    if found.root != "/" and known(node.host.entry(found.root), f"whether '{found.root}' is there") is None:
        fault(
            seen=f"{found.path}: root = '{found.root}', and there is no such folder",
            means="the toolkit looks for the driver where it is not",
            remedy="set nvidia-container-cli.root to '/' for a driver on the host, to '/run/nvidia/driver' for a "
            "driver container; confirm with 'gpucheck run -k RTM-008'",
        )
    if known(toolkit.mode, "the mode of the NVIDIA runtime") is ToolkitMode.LEGACY and found.ldconfig is not None:
        path = found.ldconfig.removeprefix("@")
        if known(node.host.entry(path), f"whether '{path}' is there") is None:
            fault(
                seen=f"{found.path}: ldconfig = '{found.ldconfig}', and there is no such program on the host",
                means="legacy mode runs it for each container, and fails",
                remedy="set nvidia-container-cli.ldconfig to '@/sbin/ldconfig' ('@/sbin/ldconfig.real' on Ubuntu); "
                "confirm with 'gpucheck run -k RTM-008'",
            )


def _judge_mode(node: Node, written: str, path: str) -> None:
    if written == "auto":
        return
    mode = next((one for one in ToolkitMode if one.value == written), None)
    if mode is None:
        fault(
            seen=f"{path}: mode = '{written}'; known are auto, {', '.join(one.value for one in ToolkitMode)}",
            means="the NVIDIA runtime refuses every container",
            remedy="run 'nvidia-ctk config --in-place --set nvidia-container-runtime.mode=auto'; confirm with "
            "'gpucheck run -k RTM-008'",
        )
    version = known(node.runtime.toolkit.version, "the toolkit's version")
    if version < mode.since:
        fault(
            seen=f"{path}: mode = '{written}', which is known from {mode.since[0]}.{mode.since[1]} on; the toolkit is "
            f"{version[0]}.{version[1]}",
            means="this toolkit refuses the mode, and with it every container",
            remedy="run 'nvidia-ctk config --in-place --set nvidia-container-runtime.mode=auto', or update the "
            "toolkit; confirm with 'gpucheck run -k RTM-008'",
        )


def _names(modes: frozenset[Mode]) -> str:
    return ", ".join(sorted(one.value for one in modes))
