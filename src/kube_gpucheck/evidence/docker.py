"""Docker's configuration, as far as it says which runtimes there are: `daemon.json`. Reads no host.

Source: Docker documentation, "dockerd: daemon configuration file"; cri-dockerd hands a pod's handler on as the
container's runtime (`core/sandbox_run.go`).
"""

import json
import re
from typing import Final

from kube_gpucheck.evidence.configuration import Configuration, Handler, Origin, Setting
from kube_gpucheck.evidence.toml import ConfigurationError, as_table, strings, text_of

_BUILT_IN: Final = "runc"


def effective(path: str, text: str | None) -> Configuration:
    """Return what dockerd makes of its file; None is no file.

    Raises:
        ConfigurationError: it is no JSON object, or a field has a wrong type.
    """
    try:
        data = as_table({} if text is None else json.loads(text or "{}"), path)
    except (ValueError, RecursionError) as error:
        msg = f"{path}: {error}"
        raise ConfigurationError(msg) from error
    handlers = {_BUILT_IN: Handler(_BUILT_IN)}
    for name, value in as_table(data.get("runtimes"), f"{path}: runtimes").items():
        fields = as_table(value, f"{path}: runtimes.{name}")
        kind = text_of(fields, "runtimeType", path) or ""
        origin = Origin(_at(path, text, name))
        handlers[name] = Handler(name, text_of(fields, "path", path), kind, None, origin)
    cdi = as_table(data.get("features"), f"{path}: features").get("cdi")
    return Configuration(
        tuple(handlers[name] for name in sorted(handlers)),
        text_of(data, "default-runtime", path) or _BUILT_IN,
        cdi if isinstance(cdi, bool) else None,
        files=() if text is None else (path,),
        labels_containers=data.get("selinux-enabled") is True,
        systemd_cgroups="native.cgroupdriver=cgroupfs" not in strings(data.get("exec-opts"), f"{path}: exec-opts"),
        settings=tuple(Setting((key,), value, Origin(_at(path, text, key))) for key, value in sorted(data.items())),
    )


def _at(path: str, text: str | None, name: str) -> str:
    """Return the path with the line on which a field of that name first stands."""
    found = re.search(rf'"{re.escape(name)}"\s{{0,20}}:', text or "")
    return path if found is None or text is None else f"{path}:{text.count(chr(10), 0, found.start()) + 1}"
