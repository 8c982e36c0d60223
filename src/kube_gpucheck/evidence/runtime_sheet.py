"""What `gpucheck show runtime NODE` tells of a node: engine, handlers, and where each setting comes from.

Judges nothing: what could not be looked at says so in its source's words.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from kube_gpucheck.evidence.configuration import Configuration, Handler, Setting
from kube_gpucheck.evidence.containerd import CRI_V1, CRI_V2, CRI_V3, NRI
from kube_gpucheck.evidence.node import Node
from kube_gpucheck.evidence.runtime import Runtime
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen, Sheet, SheetTable

T = TypeVar("T")
_SECTIONS: Final = frozenset({CRI_V1, CRI_V2, CRI_V3, NRI})
_TOP: Final = frozenset(
    {"disabled_plugins", "required_plugins", "default-runtime", "runtimes", "features", "exec-opts"}
)


def runtime_sheet(node: Node) -> Sheet:
    """Return what is known of a node's container runtime."""
    runtime = node.runtime
    simulated = " (simulated)" if node.cluster.bundle.manifest.simulated else ""
    return Sheet(
        f"container runtime of node {node.name}{simulated}, as read at {node.host.read_at:%Y-%m-%dT%H:%M:%SZ}",
        _facts(node),
        (_handlers(runtime), _settings(runtime), _undone(runtime), _specifications(runtime)),
    )


def _facts(node: Node) -> tuple[tuple[str, str], ...]:
    runtime, engine, toolkit = node.runtime, node.runtime.engine, node.runtime.toolkit
    version = _said(engine.name, str)
    return (
        ("engine", f"{version}, of distribution {_said(engine.distribution, lambda one: one.value)}"),
        ("socket of the kubelet", _said(engine.endpoint, lambda one: one or "not said by anything that was read")),
        ("answers for CRI", _said(engine.answer, lambda one: f"{_yes(one.answers)} ({one.how})")),
        ("service", f"{_said(engine.unit, str)}, active since {_said(engine.started_at, str)}"),
        ("main file", _said(engine.configuration_path, str)),
        ("files, as they are read", _said(runtime.files, lambda one: ", ".join(one.files) or "none")),
        ("would start with them", _would_start(runtime)),
        ("template", _said(runtime.template, lambda one: "none" if one is None else one.path)),
        ("default handler", _said(runtime.configuration, lambda one: one.default)),
        (
            "running engine has it",
            _said(runtime.loaded, lambda one: f"{_yes(not one.missing and not one.other)} ({one.how})"),
        ),
        ("CDI in the engine", _said(runtime.cdi_is_enabled, _yes)),
        ("ways to GPUs", _said(node.delivery, lambda one: ", ".join(sorted(mode.value for mode in one)) or "none")),
        ("toolkit", f"{_said(toolkit.release, _numbers)}, mode {_said(toolkit.mode, lambda one: one.value)}"),
        ("its runtime", _said(toolkit.runtime_path, lambda one: one or "nowhere")),
        ("its configuration", _said(toolkit.configuration_path, str)),
        ("driver root", _said(runtime.driver_root, str)),
    )


def _would_start(runtime: Runtime) -> str:
    said = _said(runtime.refusal, lambda one: "yes" if one is None else f"no: {one}")
    found = runtime.configuration
    if said != "yes" or isinstance(found, Missing):
        return said
    if found.value.cri_disabled:
        return "yes, but not the plugin that the kubelet talks to: it is disabled"
    if found.value.find(found.value.default) is None:
        return f"yes, but not the plugin that the kubelet talks to: there is no handler '{found.value.default}'"
    return said


def _handlers(runtime: Runtime) -> SheetTable:
    configuration, files = runtime.configuration, runtime.files
    columns = ("handler", "program", "shim", "cgroups", "set by")
    if isinstance(configuration, Missing):
        return SheetTable("handlers", columns, (), _gap(configuration))
    origins = {one.name: one for one in files.value.handlers} if isinstance(files, Seen) else {}
    rows = tuple(_row(one, origins.get(one.name), configuration.value) for one in configuration.value.handlers)
    return SheetTable("handlers (* the default one)", columns, rows, "none")


def _row(handler: Handler, in_files: Handler | None, configuration: Configuration) -> tuple[str, ...]:
    origin = in_files.origin if in_files is not None else handler.origin
    return (
        f"{handler.name}{'*' if handler.name == configuration.default else ''}",
        handler.binary or "-",
        handler.runtime_type or "-",
        "systemd" if handler.systemd_cgroup else "cgroupfs",
        "built in" if origin is None else str(origin),
    )


def _settings(runtime: Runtime) -> SheetTable:
    files, columns = runtime.files, ("setting", "value", "set by")
    if isinstance(files, Missing):
        return SheetTable("settings", columns, (), _gap(files))
    rows = tuple((_key(one), _value(one.value), str(one.origin)) for one in files.value.settings if _counts(one))
    return SheetTable("settings for containers that a file makes", columns, rows, "none: what is built in holds")


def _undone(runtime: Runtime) -> SheetTable:
    files, columns = runtime.files, ("setting", "value", "written at", "undone by", "what holds")
    if isinstance(files, Missing):
        return SheetTable("settings that do not count", columns, (), _gap(files))
    rows = tuple(
        (
            _key(one.setting),
            _value(one.setting.value),
            str(one.setting.origin),
            str(one.winner),
            "the built-in value" if one.instead is None else _value(one.instead),
        )
        for one in files.value.undone
        if _counts(one.setting)
    )
    return SheetTable("settings that do not count", columns, rows, "none")


def _specifications(runtime: Runtime) -> SheetTable:
    found, columns = runtime.cdi.specifications, ("file", "kind", "devices")
    if isinstance(found, Missing):
        return SheetTable("CDI specifications for NVIDIA", columns, (), _gap(found))
    rows = tuple((one.path, one.problem or one.kind, ", ".join(one.devices) or "none") for one in found.value)
    return SheetTable("CDI specifications for NVIDIA", columns, rows, "none")


def _counts(setting: Setting) -> bool:
    """Tell whether a setting may bear on GPUs; registries do not, and their credentials belong into no ticket."""
    key = setting.key
    if {"registry", "image_decryption"} & set(key):
        return False
    return key[0] in _TOP or key[0] == "crio" or (key[0] == "plugins" and key[1] in _SECTIONS)


def _key(setting: Setting) -> str:
    return ".".join(f'"{part}"' if "." in part else part for part in setting.key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    return str(value)


def _said(reading: Reading[T], words: Callable[[T], object]) -> str:
    return _gap(reading) if isinstance(reading, Missing) else str(words(reading.value))


def _gap(missing: Missing) -> str:
    return f"{'not read' if missing.kind is MissingKind.NOT_ASKED else 'unknown'}: {missing.reason}"


def _yes(holds: object) -> str:
    return "yes" if holds else "no"


def _numbers(release: tuple[int, ...]) -> str:
    return ".".join(map(str, release))
