"""containerd's configuration: what its files say, how its releases merge them, and what the running one answers.

Reads no host: it is given texts. Sources: containerd's `services/server/config/config.go` at 1.6 and 1.7,
`cmd/containerd/server/config/config.go` at 2.0 and later, `internal/cri/config` (upstream-facts, section 4); the rule
of 1.6 was compared with `containerd config dump` of 1.6.20.
"""

import fnmatch
import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from kube_gpucheck.evidence.toml import ConfigurationError, as_table, load_toml, strings

NVIDIA_BINARY: Final = re.compile(r"nvidia-container-runtime(?:\.(?:cdi|legacy|experimental|real))*")
"""Programs of the NVIDIA Container Toolkit that an engine calls in place of runc (upstream-facts, section 3)."""

CRI_V1: Final = "cri"
CRI_V2: Final = "io.containerd.grpc.v1.cri"
CRI_V3: Final = "io.containerd.cri.v1.runtime"
"""The CRI section's name in files of version 1, of version 2, and of versions 3 and 4."""

_DEFAULT: Final = "runc"
_URI_PARTS: Final = 4
_HIGHEST: Final = (((1, 0), 1), ((1, 3), 2), ((2, 0), 3), ((2, 3), 4))


class Handler(msgspec.Struct, frozen=True):
    """A runtime handler of an engine.

    `binary`: the program that it calls, None if none is named (containerd then calls runc). `runtime_type`: the shim,
    "" if none is given. `systemd_cgroup`: None if it is not said. `file`: the file that set it, None where the
    evidence does not tell (a dump, a running engine) or where it is built in.
    """

    name: str
    binary: str | None = None
    runtime_type: str = ""
    systemd_cgroup: bool | None = None
    file: str | None = None

    @property
    def is_nvidia(self) -> bool:
        """Whether it is the NVIDIA Container Runtime: by its program, or by its name where no program is known."""
        if self.binary is not None:
            return NVIDIA_BINARY.fullmatch(posixpath.basename(self.binary)) is not None
        return names_nvidia(self.name)


class Lost(msgspec.Struct, frozen=True):
    """A setting for NVIDIA that one file makes and another undoes.

    `setting`: what was set, as the file says it. `file`: where. `winner`: the file that took its place. `instead`: what
    holds now.
    """

    setting: str
    file: str
    winner: str
    instead: str


class Configuration(msgspec.Struct, frozen=True):
    """What an engine's configuration comes to.

    `handlers` in order of name. `default`: the handler of pods that name none. `enable_cdi` and `cdi_spec_dirs`: None
    if not said. `disabled` plugins by URI. `version`: the highest version that a file has. `files`: those that were
    read, in the order in which the engine reads them. `lost`: settings for NVIDIA that were undone. `refused`: why this
    release would not start with these files, None if it would. `nri_disabled`: None if not said.
    """

    handlers: tuple[Handler, ...]
    default: str = _DEFAULT
    enable_cdi: bool | None = None
    cdi_spec_dirs: tuple[str, ...] | None = None
    disabled: tuple[str, ...] = ()
    version: int = 1
    files: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()
    refused: str | None = None
    nri_disabled: bool | None = None

    @property
    def nvidia(self) -> tuple[Handler, ...]:
        """The handlers that are NVIDIA's."""
        return tuple(one for one in self.handlers if one.is_nvidia)

    def find(self, name: str) -> Handler | None:
        """Return the handler of that name, or None if there is none."""
        return next((one for one in self.handlers if one.name == name), None)

    @property
    def default_is_nvidia(self) -> bool:
        """Whether pods that name no class run under NVIDIA's handler."""
        found = self.find(self.default)
        return found is not None and found.is_nvidia

    @property
    def cri_disabled(self) -> bool:
        """Whether the plugin that the kubelet talks to is switched off."""
        return any(one in {CRI_V1, CRI_V2, CRI_V3} or one.endswith(".cri") for one in self.disabled)


class File(msgspec.Struct, frozen=True):
    """One configuration file. `version` is None where it does not say: containerd takes it for 1."""

    path: str
    data: Mapping[str, object]
    version: int | None
    imports: tuple[str, ...]

    @property
    def plugins(self) -> Mapping[str, object]:
        """The plugins' sections by name."""
        return as_table(self.data.get("plugins"), f"{self.path}: plugins")

    def mentions_nvidia(self) -> bool:
        """Tell whether it has an NVIDIA handler under any of the section's names, right or wrong for its version."""
        sections = (section(self.plugins, name, self.path) for name in (CRI_V1, CRI_V2, CRI_V3))
        return any(
            _handler(name, one, self.path).is_nvidia for part in sections for name, one in runtimes(part, self.path)
        )

    def defines(self, handler: str) -> bool:
        """Tell whether it has a handler of that name under any of the section's names."""
        sections = (section(self.plugins, name, self.path) for name in (CRI_V1, CRI_V2, CRI_V3))
        return any(handler == name for part in sections for name, _ in runtimes(part, self.path))


def names_nvidia(name: str) -> bool:
    """Tell whether a handler's or class's name says that it is NVIDIA's."""
    return "nvidia" in name.lower()


def parse(path: str, text: str) -> File:
    """Return a file's content.

    Raises:
        ConfigurationError: it is no TOML, or a field has a type that containerd refuses.
    """
    data = load_toml(path, text)
    version = data.get("version")
    if version is not None and (not isinstance(version, int) or isinstance(version, bool)):
        msg = f"{path}: 'version' is {version!r}, expected a number"
        raise ConfigurationError(msg)
    return File(path, data, version or None, strings(data.get("imports"), f"{path}: imports"))


def import_pattern(parent: str, pattern: str) -> str:
    """Return an entry of `imports` as an absolute path or glob; one without a star is relative to its file."""
    return (
        pattern if pattern.startswith("/") else posixpath.normpath(posixpath.join(posixpath.dirname(parent), pattern))
    )


def matches(pattern: str, path: str) -> bool:
    """Tell whether a path is meant by a glob; a star never crosses a folder."""
    return posixpath.dirname(pattern) == posixpath.dirname(path) and fnmatch.fnmatchcase(
        posixpath.basename(path), posixpath.basename(pattern)
    )


def section(plugins: Mapping[str, object], name: str, where: str) -> Mapping[str, object]:
    """Return one plugin's section, empty if there is none."""
    return as_table(plugins.get(name), f"{where}: plugins.{name}")


def runtimes(part: Mapping[str, object], where: str) -> tuple[tuple[str, Mapping[str, object]], ...]:
    """Return the handlers' tables of a CRI section, by name."""
    containerd = as_table(part.get("containerd"), f"{where}: containerd")
    tables = as_table(containerd.get("runtimes"), f"{where}: runtimes")
    return tuple((name, as_table(value, f"{where}: runtimes.{name}")) for name, value in tables.items())


def effective(files: tuple[File, ...], release: tuple[int, int] | None) -> Configuration:
    """Return what containerd of a release makes of its files, the main one first, imports in the order of loading.

    1.x: a later file's section takes the place of the earlier one's, whole. 2.x: tables are merged, key by key. Where
    the release is not known both are worked out, and must agree.

    Raises:
        ConfigurationError: a field has a wrong type, or the result depends on what is not known.
    """
    if release is not None:
        return _by_replacing(files, release) if release < (2, 0) else _by_merging(files, release)
    one, other = _by_replacing(files, (1, 7)), _by_merging(files, (2, 3))
    if (_meaning(one), one.default) != (_meaning(other), other.default):
        names = " and ".join(file.path for file in files)
        msg = f"{names}: containerd 1.x and 2.x merge these differently, and the engine's release is not known"
        raise ConfigurationError(msg)
    return msgspec.structs.replace(one, refused=None)


def dumped(text: str) -> Configuration:
    """Return what `containerd config dump` prints: the files merged by the program itself, defaults included.

    Raises:
        ConfigurationError: it is no TOML, or cut short.
    """
    file = parse("containerd config dump", text)
    if file.version is None or "plugins" not in file.data:
        msg = "containerd config dump: no 'version' or no 'plugins' in it: cut short, or an error message"
        raise ConfigurationError(msg)
    part = section(file.plugins, CRI_V3 if file.version > 2 else CRI_V2, file.path)  # noqa: PLR2004  the file's version
    found = _configuration((file,), part, builtin=False)
    handlers = tuple(msgspec.structs.replace(one, file=None) for one in found.handlers)
    return msgspec.structs.replace(found, handlers=handlers, files=file.imports)


class Running(msgspec.Struct, frozen=True):
    """What the running engine says of itself over CRI.

    `handlers`: None if the answer does not list them. `default`: None if not said. `ready`: the condition RuntimeReady,
    None if the answer has none. `endpoint`: the socket that answered, "" if not said. `reason`: why it is not ready.
    """

    handlers: tuple[Handler, ...] | None = None
    default: str | None = None
    ready: bool | None = None
    endpoint: str = ""
    reason: str = ""
    enable_cdi: bool | None = None


def running(text: str) -> Running:
    """Return what `crictl info` prints.

    containerd puts its configuration under `config`; CRI-O and containerd 2.x list `runtimeHandlers`.

    Raises:
        ConfigurationError: it is no JSON object.
    """
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"crictl info: {error}"
        raise ConfigurationError(msg) from error
    if not isinstance(answer, dict):
        msg = "crictl info: no JSON object"
        raise ConfigurationError(msg)
    config = as_table(answer.get("config"), "crictl info: config")
    engine = as_table(config.get("containerd"), "crictl info: config.containerd")
    tables = as_table(engine.get("runtimes"), "crictl info: runtimes")
    handlers: tuple[Handler, ...] | None = None
    if tables:
        handlers = tuple(_running_handler(name, tables[name]) for name in sorted(tables))
    elif isinstance(answer.get("runtimeHandlers"), list):
        listed = [as_table(one, "crictl info: runtimeHandlers") for one in answer["runtimeHandlers"]]
        names = sorted({str(one.get("name") or "") for one in listed} - {""})
        handlers = tuple(Handler(name) for name in names) if names else None
    ready, reason = _readiness(answer)
    enable = config.get("enableCDI")
    return Running(
        handlers,
        str(engine.get("defaultRuntimeName") or "") or None,
        ready,
        str(config.get("containerdEndpoint") or ""),
        reason,
        enable if isinstance(enable, bool) else None,
    )


def _readiness(answer: Mapping[str, object]) -> tuple[bool | None, str]:
    conditions = as_table(answer.get("status"), "crictl info: status").get("conditions")
    for one in conditions if isinstance(conditions, list) else ():
        condition = as_table(one, "crictl info: conditions")
        if condition.get("type") == "RuntimeReady":
            words = (str(condition.get("reason") or ""), str(condition.get("message") or ""))
            return condition.get("status") is True, ": ".join(filter(None, words))
    return None, ""


def _running_handler(name: str, value: object) -> Handler:
    fields = as_table(value, f"crictl info: runtimes.{name}")
    options = as_table(fields.get("options"), f"crictl info: runtimes.{name}.options")
    binary = options.get("BinaryName") or fields.get("runtimeEngine")
    systemd = options.get("SystemdCgroup")
    return Handler(
        name,
        str(binary) if binary else None,
        str(fields.get("runtimeType") or ""),
        systemd if isinstance(systemd, bool) else None,
    )


def _by_replacing(files: tuple[File, ...], release: tuple[int, int]) -> Configuration:
    version = next((one.version for one in reversed(files) if one.version), 1)
    name = CRI_V2 if version > 1 else CRI_V1
    part: Mapping[str, object] = {}
    for file in files:
        if name in file.plugins:
            part = section(file.plugins, name, file.path)
    found = _configuration(files, part, builtin="runtimes" not in as_table(part.get("containerd"), "containerd"))
    parts = tuple((file, section(file.plugins, name, file.path)) for file in files if name in file.plugins)
    return _attributed(found, parts, refused=_refused(files, version, release))


def _by_merging(files: tuple[File, ...], release: tuple[int, int]) -> Configuration:
    parts: list[tuple[File, Mapping[str, object]]] = []
    for file in files:
        old = section(file.plugins, CRI_V1 if (file.version or 1) == 1 else CRI_V2, file.path)
        new = section(file.plugins, CRI_V3, file.path)
        part = _merged(new, old) if (file.version or 1) <= 2 else new  # noqa: PLR2004  the file's version
        if part:
            parts.append((file, part))
    versions = {max(file.version or 1, 2) for file, _ in parts}
    if len(versions) > 1 and release < (2, 3):
        # 2.0 to 2.2 migrate an import only from version 1, so what a mixture means depends on the order
        names = " and ".join(f"{file.path} (version {file.version or 1})" for file, _ in parts)
        msg = f"{names}: containerd {release[0]}.{release[1]} mixes these by their order; run 'containerd config dump'"
        raise ConfigurationError(msg)
    whole: Mapping[str, object] = {}
    for _, part in parts:
        whole = _merged(whole, part)
    version = next((one.version for one in reversed(files) if one.version), 1)
    found = _configuration(files, whole, builtin=True)
    return _attributed(found, tuple(parts), refused=_refused(files, version, release))


def _configuration(files: tuple[File, ...], part: Mapping[str, object], *, builtin: bool) -> Configuration:
    where = files[-1].path if files else "containerd"
    engine = as_table(part.get("containerd"), f"{where}: containerd")
    handlers = {name: _handler(name, fields, None) for name, fields in runtimes(part, where)}
    if builtin:
        handlers.setdefault(_DEFAULT, Handler(_DEFAULT, None, "io.containerd.runc.v2"))
    default = str(engine.get("default_runtime_name") or _DEFAULT)
    legacy = as_table(engine.get("default_runtime"), f"{where}: default_runtime")
    if legacy.get("runtime_type"):  # containerd 1.x: the deprecated table is the handler "default", and wins
        handlers["default"] = _handler("default", legacy, None)
        default = "default"
    enable, nri = part.get("enable_cdi"), None
    disabled: list[str] = []
    for file in files:
        disabled += strings(file.data.get("disabled_plugins"), f"{file.path}: disabled_plugins")
        said = section(file.plugins, "io.containerd.nri.v1.nri", file.path).get("disable")
        nri = said if isinstance(said, bool) else nri
    folders = part.get("cdi_spec_dirs")
    return Configuration(
        tuple(handlers[name] for name in sorted(handlers)),
        default,
        enable if isinstance(enable, bool) else None,
        None if folders is None else strings(folders, f"{where}: cdi_spec_dirs"),
        tuple(dict.fromkeys(disabled)),
        max((file.version or 1 for file in files), default=1),
        tuple(file.path for file in files),
        nri_disabled=nri,
    )


def _attributed(
    found: Configuration, parts: tuple[tuple[File, Mapping[str, object]], ...], *, refused: str | None
) -> Configuration:
    """Name the file that set each handler, and what files set in vain."""
    setter: dict[str, str] = {}
    lost: list[Lost] = []
    for file, part in parts:
        setter.update({name: file.path for name, _ in runtimes(part, file.path)})
    last = parts[-1][0].path if parts else ""
    for file, part in parts:
        for name, fields in runtimes(part, file.path):
            mine, now = _handler(name, fields, file.path), found.find(name)
            if not mine.is_nvidia:
                continue
            what = f"handler '{name}' with {mine.binary or 'no BinaryName'}"
            if now is None:
                lost.append(Lost(what, file.path, last, f"no handler '{name}'"))
            elif now.binary != mine.binary and setter[name] != file.path:
                instead = f"handler '{name}' with {now.binary or 'no BinaryName'}"
                lost.append(Lost(what, file.path, setter[name], instead))
        said = str(as_table(part.get("containerd"), file.path).get("default_runtime_name") or "")
        if said != found.default and names_nvidia(said) and file.path != last:
            lost.append(Lost(f"default runtime '{said}'", file.path, last, f"default runtime '{found.default}'"))
    handlers = tuple(msgspec.structs.replace(one, file=setter.get(one.name)) for one in found.handlers)
    return msgspec.structs.replace(found, handlers=handlers, lost=tuple(lost), refused=refused)


def _refused(files: tuple[File, ...], version: int, release: tuple[int, int]) -> str | None:
    highest = next(number for since, number in reversed(_HIGHEST) if release >= since)
    for file in files:
        if (file.version or 1) > highest:
            return f"{file.path} has version {file.version}, containerd {release[0]}.{release[1]} reads up to {highest}"
    if release < (2, 0) and version > 1:
        for file in files:
            for key in file.plugins:
                if len(key.split(".")) < _URI_PARTS:
                    return f"{file.path} has plugin '{key}' of version 1 beside files of version {version}"
    return None


def _handler(name: str, fields: Mapping[str, object], file: str | None) -> Handler:
    options = as_table(fields.get("options"), f"{file}: runtimes.{name}.options")
    binary = options.get("BinaryName") or fields.get("runtime_engine")
    systemd = options.get("SystemdCgroup")
    return Handler(
        name,
        str(binary) if binary else None,
        str(fields.get("runtime_type") or ""),
        systemd if isinstance(systemd, bool) else None,
        file,
    )


def _meaning(found: Configuration) -> tuple[Handler, ...]:
    """Return the handlers without what only the text of files tells; runc is built in, so that it is there or not."""
    return tuple(one for one in found.handlers if one.name != _DEFAULT)


def _merged(one: Mapping[str, object], other: Mapping[str, object]) -> Mapping[str, object]:
    result = dict(one)
    for key, value in other.items():
        mine = result.get(key)
        if isinstance(mine, dict) and isinstance(value, dict):
            result[key] = _merged(mine, value)
        elif isinstance(mine, list) and isinstance(value, list):
            result[key] = [*mine, *value]
        else:
            result[key] = value
    return result


def has_nvidia(handlers: Iterable[Handler]) -> bool:
    """Tell whether one of the handlers is NVIDIA's."""
    return any(one.is_nvidia for one in handlers)
