"""CRI-O's configuration: `crio.conf`, then the files of `crio.conf.d` in order of name; the later one wins, key by key.

Source: CRI-O documentation, crio.conf(5) and crio.conf.d(5) (upstream-facts, section 5). Reads no host.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from kube_gpucheck.evidence.configuration import Configuration, Handler, Lost, Origin, Setting, Undone, names_nvidia
from kube_gpucheck.evidence.toml import as_table, load_toml, strings, text_of

MAIN: Final = "/etc/crio/crio.conf"
DROP_INS: Final = "/etc/crio/crio.conf.d"


def effective(files: tuple[tuple[str, str], ...]) -> Configuration:
    """Return what CRI-O makes of its files, given as (path, text) in the order of loading.

    Raises:
        ConfigurationError: one is no TOML, or a field has a wrong type.
    """
    handlers: dict[str, Handler] = {}
    default, default_origin = "", Origin("")
    folders: tuple[str, ...] | None = None
    lost: list[Lost] = []
    settings: dict[tuple[str, ...], Setting] = {}
    undone: list[Undone] = []
    for path, text in files:
        for key, value in _leaves(load_toml(path, text)):
            now = Setting(key, value, Origin(path, text, key))
            if key in settings:
                undone.append(Undone(settings[key], now.origin, value))
            settings[key] = now
        runtime = as_table(as_table(load_toml(path, text).get("crio"), path).get("runtime"), path)
        for name, value in as_table(runtime.get("runtimes"), f"{path}: runtimes").items():
            fields = as_table(value, f"{path}: runtimes.{name}")
            before = handlers.get(name)
            binary = text_of(fields, "runtime_path", path) or (before.binary if before else None)
            kind = text_of(fields, "runtime_type", path) or (before.runtime_type if before else "oci")
            origin = Origin(path, text, ("crio", "runtime", "runtimes", name))
            if before is not None and before.origin is not None and before.is_nvidia and before.binary != binary:
                instead = f"handler '{name}' with {binary or 'no runtime_path'}"
                what = f"handler '{name}' with {before.binary or 'no runtime_path'}"
                lost.append(Lost(what, before.origin, origin, instead))
            handlers[name] = Handler(name, binary, kind, None, origin)
        said = text_of(runtime, "default_runtime", path) or ""
        if said:
            origin = Origin(path, text, ("crio", "runtime", "default_runtime"))
            if names_nvidia(default) and said != default:
                lost.append(Lost(f"default runtime '{default}'", default_origin, origin, f"default runtime '{said}'"))
            default, default_origin = said, origin
        if "cdi_spec_dirs" in runtime:
            folders = strings(runtime["cdi_spec_dirs"], f"{path}: cdi_spec_dirs")
    # the built-in default is crun since CRI-O 1.31 and runc before: both are there without being written down
    for builtin in ("runc", "crun"):
        handlers.setdefault(builtin, Handler(builtin, None, "oci"))
    return Configuration(
        tuple(handlers[name] for name in sorted(handlers)),
        default or "runc",
        None,
        folders,
        files=tuple(path for path, _ in files),
        lost=tuple(lost),
        nri_disabled=_said(settings, "crio", "nri", "enable_nri") is False,
        labels_containers=_said(settings, "crio", "runtime", "selinux") is True,
        systemd_cgroups=_said(settings, "crio", "runtime", "cgroup_manager") in {None, "systemd"},
        settings=tuple(settings[key] for key in sorted(settings)),
        undone=tuple(undone),
    )


def _said(settings: Mapping[tuple[str, ...], Setting], *key: str) -> object:
    found = settings.get(key)
    return None if found is None else found.value


def _leaves(table: Mapping[str, object], key: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*key, name))
        else:
            yield (*key, name), value
