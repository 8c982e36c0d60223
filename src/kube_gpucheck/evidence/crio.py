"""CRI-O's configuration: `crio.conf`, then the files of `crio.conf.d` in order of name; the later one wins, key by key.

Source: CRI-O documentation, crio.conf(5) and crio.conf.d(5) (upstream-facts, section 5). Reads no host.
"""

from typing import Final

from kube_gpucheck.evidence.containerd import Configuration, Handler, Lost
from kube_gpucheck.evidence.toml import as_table, load_toml, strings

MAIN: Final = "/etc/crio/crio.conf"
DROP_INS: Final = "/etc/crio/crio.conf.d"


def effective(files: tuple[tuple[str, str], ...]) -> Configuration:
    """Return what CRI-O makes of its files, given as (path, text) in the order of loading.

    Raises:
        ConfigurationError: one is no TOML, or a field has a wrong type.
    """
    handlers: dict[str, Handler] = {}
    default, default_file = "", ""
    folders: tuple[str, ...] | None = None
    lost: list[Lost] = []
    for path, text in files:
        runtime = as_table(as_table(load_toml(path, text).get("crio"), path).get("runtime"), path)
        for name, value in as_table(runtime.get("runtimes"), f"{path}: runtimes").items():
            fields = as_table(value, f"{path}: runtimes.{name}")
            before = handlers.get(name)
            binary = str(fields.get("runtime_path") or "") or (before.binary if before else None)
            kind = str(fields.get("runtime_type") or "") or (before.runtime_type if before else "oci")
            now = Handler(name, binary, kind, None, path)
            if before is not None and before.is_nvidia and before.binary != now.binary:
                instead = f"handler '{name}' with {now.binary or 'no runtime_path'}"
                what = f"handler '{name}' with {before.binary or 'no runtime_path'}"
                lost.append(Lost(what, before.file or path, path, instead))
            handlers[name] = now
        said = str(runtime.get("default_runtime") or "")
        if said:
            if "nvidia" in default and said != default:
                lost.append(Lost(f"default runtime '{default}'", default_file, path, f"default runtime '{said}'"))
            default, default_file = said, path
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
    )
