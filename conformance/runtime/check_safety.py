"""Runtime layer: the toolkit keeps containers apart from the host and from GPUs that they were not given."""

from kube_gpucheck.evidence import Component, Node
from kube_gpucheck.evidence.delivery import strategies
from kube_gpucheck.evidence.tables import toolkit_flaws
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Seen, Severity


@check("RTM-013", layer=Layer.RUNTIME, severity=Severity.MINOR, after=("RTM-002",))
def check_toolkit_has_no_published_vulnerability(node: Node) -> None:
    """The toolkit's version has no vulnerability that was published until the table's date.

    A later one passes: gpucheck knows of none that came after its table. The driver's are DRV-021's.
    """
    if not known(node.runtime.toolkit_installed, "whether the toolkit is installed"):
        not_applicable("the NVIDIA Container Toolkit is not installed; RTM-002 judges that where it is needed")
    release = known(node.runtime.toolkit.release, "the toolkit's version")
    table = toolkit_flaws()
    flaws = table.of(release)
    if flaws:
        version = ".".join(map(str, release))
        least = ".".join(map(str, max(one.fixed for one in flaws)))
        fault(
            seen=f"the toolkit is {version}; {len(flaws)} published vulnerabilities are fixed by {least} (table of "
            f"{table.dated}), the last {flaws[-1].id}: {flaws[-1].what}",
            means="whoever may start a container with an image of their own on this node can reach the host",
            remedy=f"update nvidia-container-toolkit to {least} or later (the GPU Operator: its toolkit image); "
            "confirm with 'gpucheck run -k RTM-013'",
        )


@check("RTM-014", layer=Layer.RUNTIME, severity=Severity.INFO, after=("RTM-002",))
def check_variables_alone_give_no_gpu(node: Node) -> None:
    """Containers without privileges cannot ask for GPUs by NVIDIA_VISIBLE_DEVICES alone.

    Judged where the device plugin hands GPUs over otherwise (volume-mounts, CDI): with its default strategy, envvar,
    the variable is how it is done. A pod that does it is WRK-014's.
    """
    if not known(node.deliveries.by_handler, "how GPUs reach this node's containers"):
        not_applicable("this node's containers get their GPUs without the NVIDIA runtime")
    if not known(node.runtime.toolkit_installed, "whether the toolkit is installed"):
        not_applicable("the NVIDIA Container Toolkit is not installed; RTM-002 judges that")
    known(node.cluster.stack.daemonsets, "the device plugins")
    plugins = known(node.deliveries.serving(Component.DEVICE_PLUGIN), "the device plugins")
    if not plugins:
        not_applicable("no device plugin serves this node")
    ways = {one for plugin in plugins for one in strategies(known(plugin.main_container, "the plugin's container"))}
    if "envvar" in ways:
        not_applicable("the device plugin's strategy is envvar, which needs the variable")
    found = known(node.runtime.toolkit.configuration, "the toolkit's config.toml")
    if found is None or found.accepts_variable:
        where = known(node.runtime.toolkit.configuration_path, "where the toolkit's config.toml lies")
        fault(
            seen=f"the device plugin hands over GPUs by {', '.join(sorted(ways))}; {where} lets NVIDIA_VISIBLE_DEVICES "
            "count for containers without privileges",
            means="any pod under the NVIDIA handler can take GPUs that the scheduler did not give it",
            remedy="run 'nvidia-ctk config --in-place --set "
            "accept-nvidia-visible-devices-envvar-when-unprivileged=false'; confirm with 'gpucheck run -k RTM-014'",
        )


@check("RTM-015", layer=Layer.RUNTIME, severity=Severity.MINOR)
def check_selinux_lets_containers_use_the_gpu(node: Node) -> None:
    """With SELinux enforcing, the policy lets containers use the GPU's device nodes.

    By the boolean container_use_devices, or because the engine does not label containers. Containers with privileges,
    and those with a type of their own, are not held back.
    """
    if not known(node.runtime.selinux_enforces, "whether SELinux enforces"):
        not_applicable("SELinux is not there, or not enforcing")
    if known(node.runtime.selinux_boolean, "the boolean container_use_devices"):
        return
    if not known(node.runtime.configuration, "the engine's effective configuration").labels_containers:
        return
    denials = node.runtime.selinux_denials
    seen = denials.value if isinstance(denials, Seen) else ()
    fault(
        seen="SELinux enforces, the engine labels containers, and container_use_devices is off"
        + (f"; the kernel's log has {len(seen)} such denials, the last: {seen[-1][:200]}" if seen else ""),
        means="a container without privileges may not open /dev/nvidia*: 'Failed to initialize NVML: Insufficient "
        "Permissions'",
        remedy="run 'setsebool -P container_use_devices 1', or give GPU pods a type of NVIDIA's policy by "
        "seLinuxOptions; confirm with 'gpucheck run -k RTM-015'",
    )
