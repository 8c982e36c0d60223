"""What a pod's specification tells of a part of the GPU stack: its main container, settings, configuration file.

Sources: the device plugin's chart 0.12 to 0.20, the operator's DaemonSets, static manifests.
"""

import posixpath
from collections.abc import Mapping

import msgspec

from kube_gpucheck.evidence.documents import Container, PodSpec
from kube_gpucheck.evidence.sharing import CONFIG_LABEL, ConfigError
from kube_gpucheck.evidence.stack import Component, recognise


class Source(msgspec.Struct, frozen=True):
    """Where a plugin's configuration comes from, as its pod's specification says.

    `manager`: config-manager chooses the entry by node label, default and fallbacks; else `entry` is the file's name.
    """

    config_map: str
    path: str
    manager: bool = False
    label: str = CONFIG_LABEL
    default: str | None = None
    fallbacks: tuple[str, ...] = ()
    entry: str = ""


def source_of(spec: PodSpec) -> Source | None:
    """Return where the plugin's configuration comes from, None if the plugin is told of no file.

    Source: chart 0.12 to 0.20 (config-manager as init container and sidecar), the operator's DaemonSet, static files.
    """
    for container in (*spec.containers, *(spec.init_containers or ())):
        folder = setting(container, "--config-file-srcdir", "CONFIG_FILE_SRCDIR")
        if folder and (_runs_manager(container) or setting(container, "", "NODE_LABEL")):
            return Source(
                config_map=_mounted(spec, container, folder) or "",
                path=folder,
                manager=True,
                label=setting(container, "--node-label", "NODE_LABEL") or CONFIG_LABEL,
                default=setting(container, "--default-config", "DEFAULT_CONFIG") or None,
                fallbacks=tuple(
                    one.strip()
                    for one in (setting(container, "--fallback-strategies", "FALLBACK_STRATEGIES") or "").split(",")
                    if one.strip()
                ),
            )
    container = main_container(spec)
    path = setting(container, "--config-file", "CONFIG_FILE")
    if not path:
        return None
    return Source(config_map=_mounted(spec, container, path) or "", path=path, entry=posixpath.basename(path))


def _runs_manager(container: Container) -> bool:
    words = (*(container.command or ()), *(container.args or ()))
    return any("config-manager" in word for word in words) or "config-manager" in container.name


def _mounted(spec: PodSpec, container: Container, path: str) -> str | None:
    maps = {one.name: one.config_map.name for one in spec.volumes or () if one.config_map is not None}
    for mount in container.volume_mounts or ():
        below = path == mount.mount_path or path.startswith(mount.mount_path.rstrip("/") + "/")
        if below and mount.name in maps:
            return maps[mount.name]
    return None


def only_entry(data: Mapping[str, str], source: Source) -> str:
    """Return the one entry of a ConfigMap that is mounted as a file of another name.

    Raises:
        ConfigError: it has none, or several.
    """
    if len(data) != 1:
        entries = ", ".join(f"'{name}'" for name in sorted(data))
        raise ConfigError(f"no entry '{source.entry}' for '{source.path}'; its entries are {entries or 'none'}")
    return next(iter(data))


def setting(container: Container, flag: str, variable: str) -> str | None:
    """Return a setting's literal value: the flag's where it is given, else the variable's, else None."""
    words = [*(container.command or ()), *(container.args or ())]
    for place, word in enumerate(words):
        if flag and word.startswith(f"{flag}="):
            return word.partition("=")[2]
        if flag and word == flag and place + 1 < len(words):
            return words[place + 1]
    return next((one.value for one in container.env or () if one.name == variable), None)


def main_container(spec: PodSpec) -> Container:
    """Return the container that does the pod's work in the GPU stack (no sidecar), else the first."""
    component = recognise(spec)
    mine = [one for one in spec.containers if component is not None and component.is_main(one)]
    return (mine or list(spec.containers))[0]


def hides_all(spec: PodSpec) -> str | None:
    """Return what tells the pod's main container to see no GPU, in a reader's words, None if nothing does.

    The DRA driver's plugin wants none: it takes the driver from the folder that it mounts. Source: NVIDIA Container
    Toolkit, "Environment variables": `void`, `none` and an empty value give no device; dra-driver-nvidia-gpu, chart.
    """
    if recognise(spec) is Component.DRA_KUBELET_PLUGIN:
        return None
    for variable in main_container(spec).env or ():
        if (
            variable.name == "NVIDIA_VISIBLE_DEVICES"
            and variable.value_from is None
            and (variable.value or "") in {"", "none", "void"}
        ):
            return f"its specification sets NVIDIA_VISIBLE_DEVICES='{variable.value or ''}'"
    return None
