"""Device-plugin layer: the plugin's version suits Kubernetes and the driver."""

from kube_gpucheck.evidence import Cluster
from kube_gpucheck.evidence.delivery import Mode
from kube_gpucheck.evidence.releases import Kubelets, PluginRelease, kubelets, plugin_releases
from kube_gpucheck.evidence.tables import PluginTable, device_plugin, numbers_of
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Missing, MissingKind, Severity

_SHOWN = 5
_THEN = "then run 'gpucheck run -k PLG-012'"


@check("PLG-012", layer=Layer.DEVICE_PLUGIN, severity=Severity.MINOR, after=("DRV-028",))
def check_plugin_suits_kubernetes_and_driver(cluster: Cluster) -> None:
    """The plugin's version supports this Kubernetes and this driver, and has no known CVE.

    By the table in src/kube_gpucheck/data/deviceplugin.yaml, on the day of the table: kubelets, driver, WSL2, and CDI
    names (strategy `cdi-cri` alone), which older kubelets drop in silence. Not judged: a provider's own plugin,
    packages in the plugin's image, and the operator's combinations (OPR-008).
    """
    plugins = known(plugin_releases(cluster), "the device plugins")
    if not plugins:
        not_applicable("no device plugin of NVIDIA's is installed as a DaemonSet; PLG-001 says who serves GPUs")
    table = device_plugin()
    found = known(kubelets(cluster), "the kubelets' versions")
    for plugin in plugins:
        _judge_kubelets(plugin, found, table)
        _judge_platform(cluster, plugin, table)
        _judge_flaws(plugin, table)
    _judge_drivers(cluster, table)


def _judge_kubelets(plugin: PluginRelease, found: Kubelets, table: PluginTable) -> None:
    mine = set(plugin.nodes)
    for release, names in found.nodes.items():
        nodes = tuple(name for name in names if name in mine)
        if nodes and release < table.kubernetes:
            fault(
                seen=f"{plugin.name} runs on kubelets v{release[0]}.{release[1]}: {_some(nodes)}; it needs "
                f"v{table.kubernetes[0]}.{table.kubernetes[1]} (table of {table.dated})",
                means="these kubelets do not speak the plugin's API (v1beta1)",
                remedy=f"upgrade these nodes, {_THEN}",
                nodes=nodes,
            )
        if nodes and plugin.only_by_cdi and release < table.cdi_names:
            fault(
                seen=f"{plugin.name} hands out devices by CDI name alone (device list strategy cdi-cri); the kubelet "
                f"of {_some(nodes)} is v{release[0]}.{release[1]}, and takes such names from "
                f"v{table.cdi_names[0]}.{table.cdi_names[1]} on",
                means="the kubelet drops the names in silence (1.28 takes them where the gate DevicePluginCDIDevices "
                "is on), so that pods run without the GPU that they were given",
                remedy=f"set the strategy to 'cdi-annotations' or 'envvar' until these nodes are upgraded, {_THEN}",
                nodes=nodes,
            )


def _judge_platform(cluster: Cluster, plugin: PluginRelease, table: PluginTable) -> None:
    if plugin.version is None or plugin.version >= table.wsl:
        return
    for name in plugin.nodes:
        node = cluster.node_of(name)
        if node is not None and Mode.WSL in known(node.delivery, "how GPUs reach the node's containers"):
            fault(
                seen=f"{plugin.name} is {_show(plugin.version)}, and {name} is WSL2, which the plugin knows from "
                f"{_show(table.wsl)} on",
                means="it looks for /dev/nvidia*, which WSL2 does not have ('GPU device minor number: Not Supported')",
                remedy=f"upgrade the device plugin, {_THEN}",
                nodes=[name],
            )


def _judge_flaws(plugin: PluginRelease, table: PluginTable) -> None:
    flaws = table.of(plugin.version) if plugin.version is not None else ()
    if plugin.version is not None and flaws:
        newest = max(one.fixed for one in flaws)
        fault(
            seen=f"{plugin.name} is {_show(plugin.version)}, which has {', '.join(one.id for one in flaws)} (table of "
            f"{table.dated})",
            means=f"somebody can use a published hole: {flaws[0].what}",
            remedy=f"upgrade the device plugin to {_show(newest)} or later, {_THEN}",
            nodes=plugin.nodes,
        )


def _judge_drivers(cluster: Cluster, table: PluginTable) -> None:
    drivers = cluster.fleet.drivers
    if isinstance(drivers, Missing) and drivers.kind is MissingKind.NOT_ASKED:
        return
    for versions in known(drivers, "the nodes' drivers").values():
        for version, nodes in versions.items():
            if numbers_of(version) < numbers_of(table.driver):
                fault(
                    seen=f"the driver of {_some(nodes)} is {version}; the device plugin needs {table.driver} (table of "
                    f"{table.dated})",
                    means="the plugin asks NVML for what this driver does not have",
                    remedy=f"upgrade the driver of these nodes, {_THEN}",
                    nodes=nodes,
                )


def _show(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))


def _some(nodes: tuple[str, ...]) -> str:
    more = f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else ""
    return ", ".join(nodes[:_SHOWN]) + more
