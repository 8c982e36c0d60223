"""containerd's configuration: what its files say, how its releases merge them, and what the running one answers.

Reads no host: it is given texts. Sources: containerd's `services/server/config/config.go` at 1.6 and 1.7,
`cmd/containerd/server/config/config.go` and `plugins/cri/runtime/plugin.go` at 2.0 to 2.3, `internal/cri/config`.
The rules of 1.6 are compared with the program of 1.6.20 at each test; those of 1.7 and 2.x with what its programs
printed of the same files (docs/containerd.md).
"""

import fnmatch
import functools
import json
import posixpath
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from kube_gpucheck.evidence.configuration import Configuration, Handler, Lost, Origin, Setting, Undone, names_nvidia
from kube_gpucheck.evidence.toml import ConfigurationError, UndecidedError, as_table, load_toml, strings, text_of

CRI_V1: Final = "cri"
CRI_V2: Final = "io.containerd.grpc.v1.cri"
CRI_V3: Final = "io.containerd.cri.v1.runtime"
"""The CRI section's name in files of version 1, of version 2, and of versions 3 and 4."""
_CRI_URIS: Final = (CRI_V2, CRI_V3, "io.containerd.cri.v1.images")
"""The plugins without which the kubelet has nobody to talk to."""
NRI: Final = "io.containerd.nri.v1.nri"

Release = tuple[int, ...]
"""A release's numbers, the patch level included where it is known."""
Table = Mapping[str, object]

_DEFAULT: Final = "runc"
_LINUX_V1: Final = "io.containerd.runtime.v1.linux"
_URI_PARTS: Final = 4
_MERGES_SINCE: Final = (2, 0)
_EACH_FILE_MIGRATES_SINCE: Final = (2, 3)
_SECTIONS_ARE_JOINED_SINCE: Final = (2, 0, 2)
_RELATIVE_GLOBS_SINCE: Final = ((1, 6, 29), (1, 7, 16))
_HIGHEST: Final = (
    ((1, 6, 32), (1, 7), 2),
    ((1, 7, 17), (2, 0), 2),
    ((2, 0), (2, 3), 3),
    ((2, 3), (9, 0), 4),
)
"""The highest file version by releases, from and before; 1.6 and 1.7 took a higher one for 2 until they refused it."""
_BY_KEY: Final = frozenset({"timeouts", "stream_processors", "proxy_plugins"})
"""Tables of which a later file's entry takes the earlier one's place, whole."""
_PLUGIN_LISTS: Final = ("disabled_plugins", "required_plugins")


class File(msgspec.Struct, frozen=True):
    """One configuration file, which parses."""

    path: str
    text: str

    @property
    def data(self) -> Table:
        """Its tables, shared between equal files."""
        return load_toml(self.path, self.text)

    @property
    def said_version(self) -> int:
        """Its version, 0 where it does not say."""
        found = self.data.get("version", 0)
        return found if isinstance(found, int) else 0

    @property
    def version(self) -> int:
        """Its version; containerd takes a file that does not say for one of version 1."""
        return self.said_version or 1

    @property
    def imports(self) -> tuple[str, ...]:
        """The paths and globs that it imports, as written."""
        return strings(self.data.get("imports"), f"{self.path}: imports")

    @property
    def plugins(self) -> Table:
        """The plugins' sections by name."""
        return as_table(self.data.get("plugins"), f"{self.path}: plugins")

    @property
    def disables_cri(self) -> bool:
        """Whether it disables the CRI plugin, by whichever of its names, whether that counts in its version or not."""
        return any(one in {CRI_V1, *_CRI_URIS} for one in strings(self.data.get("disabled_plugins"), self.path))

    def mentions_nvidia(self) -> bool:
        """Tell whether it has an NVIDIA handler under any of the section's names, right or wrong for its version."""
        try:
            return any(_handler(name, one, None).is_nvidia for name, one in self._all_runtimes())
        except ConfigurationError:
            return False

    def defines(self, handler: str) -> bool:
        """Tell whether it has a handler of that name under any of the section's names."""
        try:
            return any(handler == name for name, _ in self._all_runtimes())
        except ConfigurationError:
            return False

    def _all_runtimes(self) -> tuple[tuple[str, Table], ...]:
        sections = (as_table(self.plugins.get(name), f"{self.path}: plugins.{name}") for name in _SECTIONS)
        return tuple(one for section in sections for one in runtimes(section, self.path))


_SECTIONS: Final = (CRI_V1, CRI_V2, CRI_V3)


def parse(path: str, text: str) -> File:
    """Return a file.

    Raises:
        ConfigurationError: it is no TOML, or a field has a type that containerd refuses.
    """
    file = File(path, text)
    version = file.data.get("version", 0)
    if not isinstance(version, int) or isinstance(version, bool):
        msg = f"{Origin(path, text, ('version',))}: 'version' is {version!r}, expected a number"
        raise ConfigurationError(msg)
    as_table(file.data.get("plugins"), f"{path}: plugins")
    for key in ("imports", *_PLUGIN_LISTS):
        strings(file.data.get(key), f"{path}: {key}")
    return file


def import_pattern(parent: str, pattern: str, release: Release | None) -> str:
    """Return an entry of `imports` as an absolute path or glob, relative to its file.

    1.6 before 1.6.29 and 1.7 before 1.7.16 take a glob as relative to the program's own folder, which is `/` for a
    service.
    """
    if pattern.startswith("/"):
        return pattern if is_glob(pattern) else posixpath.normpath(pattern)
    minor = None if release is None else release[:2]
    old = any(since[:2] == minor and release is not None and release < since for since in _RELATIVE_GLOBS_SINCE)
    folder = "/" if old and is_glob(pattern) else posixpath.dirname(parent)
    return posixpath.normpath(posixpath.join(folder, pattern))


def is_glob(pattern: str) -> bool:
    """Tell whether containerd expands an import: only a star makes it a pattern."""
    return "*" in pattern


def matches(pattern: str, path: str) -> bool:
    """Tell whether a path is meant by a glob; a star never crosses a folder."""
    return posixpath.dirname(pattern) == posixpath.dirname(path) and fnmatch.fnmatchcase(
        posixpath.basename(path), posixpath.basename(pattern)
    )


def runtimes(part: Table, where: str) -> tuple[tuple[str, Table], ...]:
    """Return the handlers' tables of a CRI section, by name."""
    containerd = as_table(part.get("containerd"), f"{where}: containerd")
    tables = as_table(containerd.get("runtimes"), f"{where}: runtimes")
    return tuple((name, as_table(value, f"{where}: runtimes.{name}")) for name, value in tables.items())


@functools.lru_cache(maxsize=64)  # a fleet's nodes share their files
def effective(files: tuple[File, ...], release: Release | None) -> Configuration:
    """Return what containerd of a release makes of its files, the main one first, imports in the order of loading.

    1.x: a later file's section takes the place of the earlier one's, whole. 2.x: tables are merged, key by key. Where
    the release is not known both are worked out, and must agree.

    Raises:
        ConfigurationError: a field has a type that containerd refuses.
        UndecidedError: the result depends on what is not known.
    """
    if release is not None:
        return _Merge(files, release).result()
    one, other = _Merge(files, (1, 7, 17)).result(), _Merge(files, (2, 3)).result()
    if (_meaning(one), one.default) != (_meaning(other), other.default):
        names = " and ".join(file.path for file in files)
        msg = f"{names}: containerd 1.x and 2.x make different things of these, and the engine's release is not known"
        raise UndecidedError(msg)
    return msgspec.structs.replace(one, refused=None)


def dumped(text: str) -> Configuration:
    """Return what `containerd config dump` prints: the files merged by the program itself, defaults included.

    Raises:
        ConfigurationError: it is no TOML, or cut short.
    """
    file = parse("containerd config dump", text)
    if not file.said_version or "plugins" not in file.data:
        msg = "containerd config dump: no 'version' or no 'plugins' in it: cut short, or an error message"
        raise ConfigurationError(msg)
    name = CRI_V3 if file.version > 2 else CRI_V2  # noqa: PLR2004  the file's version
    part = as_table(file.plugins.get(name), f"{file.path}: plugins.{name}")
    found = _configuration(part, file.plugins, file.path, is_1x=name == CRI_V2)
    listed = strings(file.data.get("disabled_plugins"), f"{file.path}: disabled_plugins")
    disabled = name not in file.plugins or (name == CRI_V3 and any(one in _CRI_URIS for one in listed))
    return msgspec.structs.replace(found, cri_disabled=disabled, version=file.version, files=file.imports)


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
    handlers = _running_handlers(config)
    if handlers is None and isinstance(answer.get("runtimeHandlers"), list):
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


_STARTED: Final = re.compile(r"(?:Start cri plugin with config|starting cri plugin)[^\n]{0,65536}")
_RUNTIMES_1X: Final = re.compile(r" Runtimes:map\[(.*?)\] NoPivot:|Runtimes:map\[(.{0,20000})")
_RUNTIME_1X: Final = re.compile(r"([\w.-]{1,200}):\{Type:(\S*)(?:(?!:\{Type:).){0,4000}?Options:map\[([^\]]{0,2000})\]")
_CONFIG_2X: Final = re.compile(r'config="((?:[^"\\]|\\.)*)"')


def started_with(log: str) -> tuple[Handler, ...] | None:
    """Return the handlers that the engine says to have read when it last started, None where its log does not say.

    1.x prints its configuration as Go does (`Start cri plugin with config`), 2.x as JSON (`starting cri plugin`).
    """
    lines = _STARTED.findall(log)
    if not lines:
        return None
    quoted = _CONFIG_2X.search(lines[-1])
    if quoted is not None:
        try:
            config = json.loads(json.loads(f'"{quoted[1]}"'))
            return _running_handlers(as_table(config, "starting cri plugin"))
        except (ValueError, ConfigurationError):
            return None
    table = _RUNTIMES_1X.search(lines[-1])
    if table is None:
        return None
    return tuple(_printed_handler(*found) for found in _RUNTIME_1X.findall(table[1] or table[2])) or None


def _printed_handler(name: str, kind: str, options: str) -> Handler:
    words = dict(word.split(":", 1) for word in options.split() if ":" in word)
    systemd = words.get("SystemdCgroup")
    return Handler(name, words.get("BinaryName") or None, kind, None if systemd is None else systemd == "true")


def _running_handlers(config: Table) -> tuple[Handler, ...] | None:
    engine = as_table(config.get("containerd"), "config.containerd")
    tables = as_table(engine.get("runtimes"), "runtimes")
    return tuple(_running_handler(name, tables[name]) for name in sorted(tables)) or None


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


class _Merge:
    """The files of one engine, merged as its release does, each value with where it is written.

    Tables are dictionaries, everything else is a `Setting` whose key is the one in its file.
    """

    def __init__(self, files: tuple[File, ...], release: Release) -> None:
        """Merge the files in order."""
        self.files = files
        self.release = release
        self.merges = release >= _MERGES_SINCE
        self.version = 1 if not self.merges else 4 if release >= _EACH_FILE_MIGRATES_SINCE else 3
        self.whole: dict[str, object] = {}
        self.plugins: dict[str, dict[str, object]] = {}
        self.parts: list[tuple[File, str, Table]] = []
        self.undone: list[tuple[Setting, Origin]] = []
        for file in files:
            self._take(file)
        if self.merges and self.version == 2:  # noqa: PLR2004  a file of version 2 as its last one: 2.0 to 2.2
            self.plugins = self._migrated(self.plugins)

    def _take(self, file: File) -> None:
        each_migrates = self.release >= _EACH_FILE_MIGRATES_SINCE
        said = file.said_version if not self.merges or file.version > 1 else 0  # 2.x takes 1 for what it has so far
        if said and (said > self.version or not each_migrates):
            self.version = said
        for key, value in file.data.items():
            if key in _PLUGIN_LISTS:
                self._append(file, key, strings(value, f"{file.path}: {key}"))
            elif isinstance(value, dict) and key != "plugins":
                into = self.whole.setdefault(key, {})
                if isinstance(into, dict):
                    for name, one in value.items():
                        self._put(into, name, _tagged(file, one, (key, name)), is_whole=key in _BY_KEY)
            elif key not in {"plugins", "imports", "version"}:
                self._put(self.whole, key, _tagged(file, value, (key,)), is_whole=False)
        sections: dict[str, dict[str, object]] = {
            self._named(file, name): _table_of(file, value, ("plugins", name)) for name, value in file.plugins.items()
        }
        if each_migrates and file.version < self.version:
            sections = self._migrated(sections)
        for name, section in sections.items():
            self.parts.append((file, name, _plain(section)))
            if name not in self.plugins:
                self.plugins[name] = section
            elif self.merges:
                self._join(self.plugins[name], section)
            else:
                self._undo(self.plugins[name], Origin(file.path, file.text, ("plugins", name)))
                self.plugins[name] = section

    def _named(self, file: File, plugin: str) -> str:
        """Return the name that a plugin of this file has for this release: 2.x knows those of version 1 by the new."""
        return CRI_V2 if self.merges and file.version == 1 and plugin == CRI_V1 else plugin

    def _append(self, file: File, key: str, names: tuple[str, ...]) -> None:
        before = self.whole.get(key)
        have = before.value if isinstance(before, Setting) and isinstance(before.value, tuple) else ()
        more = tuple(self._named(file, one) for one in names)  # others of version 1 mean nothing for GPUs
        if self.merges:
            more = tuple(one for one in dict.fromkeys(more) if one not in have)
        self.whole[key] = Setting((key,), (*have, *more), Origin(file.path, file.text, (key,)))

    def _put(self, into: dict[str, object], key: str, value: object, *, is_whole: bool) -> None:
        """Set a field outside of the plugins: an empty value takes the place of none, nor of what is built in."""
        if not is_whole and isinstance(value, Setting) and not value.value:
            return
        if key in into:
            self._undo(into[key], _first_origin(value))
        into[key] = value

    def _join(self, mine: dict[str, object], theirs: Table) -> None:
        """Merge a table into another, key by key; a list takes the place of a list."""
        for key, value in theirs.items():
            before = mine.get(key)
            if isinstance(before, dict) and isinstance(value, dict):
                self._join(before, value)
            else:
                if before is not None:
                    self._undo(before, _first_origin(value))
                mine[key] = value

    def _undo(self, value: object, winner: Origin | None) -> None:
        if winner is not None:
            self.undone += [(one, winner) for _, one in _leaves(value)]

    def _migrated(self, plugins: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
        """Return the sections with that of version 2 moved to where 2.x reads it, as its migration does.

        What the new section says wins, key by key; the handlers are one key. Before 2.0.2 the old one replaced it.
        """
        old = plugins.get(CRI_V2)
        if old is None:
            return plugins
        if self.release < _SECTIONS_ARE_JOINED_SINCE:
            self._undo(plugins.get(CRI_V3, {}), _first_origin(old))
            moved = old
        else:
            moved = self._preferring(plugins.get(CRI_V3, {}), old)
        return {**{name: one for name, one in plugins.items() if name != CRI_V2}, CRI_V3: moved}

    def _preferring(self, new: dict[str, object], old: dict[str, object]) -> dict[str, object]:
        result = dict(new)
        for key, value in old.items():
            mine = result.get(key)
            if mine is None:
                result[key] = value
            elif key == "containerd" and isinstance(mine, dict) and isinstance(value, dict):
                result[key] = self._preferring(mine, value)
            else:
                self._undo(value, _first_origin(mine))
        return result

    def result(self) -> Configuration:
        """Return what the files come to.

        Raises:
            ConfigurationError: a field has a type that containerd refuses.
        """
        name = CRI_V3 if self.merges else CRI_V2 if self.version > 1 else CRI_V1
        parts = self._counting(name)
        for file, part, _ in parts:
            for handler, fields in runtimes(part, file.path):
                _refuse_types(fields, _origin(file, handler))
        plain = {plugin: _plain(section) for plugin, section in self.plugins.items()}
        part = plain.get(name, {})
        found = _configuration(part, plain, self.files[-1].path if self.files else "containerd", is_1x=not self.merges)
        handlers = {one.name: one for one in found.handlers}
        if self.merges or "runtimes" not in as_table(part.get("containerd"), "containerd"):
            builtin = Handler(_DEFAULT, None, "io.containerd.runc.v2")
            said = handlers.get(_DEFAULT, builtin)
            handlers[_DEFAULT] = msgspec.structs.replace(said, runtime_type=said.runtime_type or builtin.runtime_type)
        disabled = self._listed("disabled_plugins")
        uris = (CRI_V1,) if name == CRI_V1 else _CRI_URIS
        settings = self._settings(name)
        found = msgspec.structs.replace(
            found,
            handlers=tuple(handlers[one] for one in sorted(handlers)),
            cri_disabled=any(one in uris for one in disabled),
            version=self.version,
            files=tuple(file.path for file in self.files),
            refused=self._refusal(),
            settings=settings,
            undone=self._undone(settings, name),
        )
        return _attributed(found, parts)

    def _counting(self, name: str) -> list[tuple[File, Table, str]]:
        """Return each file's part of the section that is read, and the name that the part has there."""
        names = {name, CRI_V2} if self.merges and self.version == 2 else {name}  # noqa: PLR2004  the file's version
        return [(file, part, section) for file, section, part in self.parts if section in names]

    def _settings(self, name: str) -> tuple[Setting, ...]:
        void = {one for one in _SECTIONS if one != name}
        tree = {**self.whole, "plugins": {plugin: one for plugin, one in self.plugins.items() if plugin not in void}}
        return tuple(
            Setting(key, one.value, one.origin) for key, one in sorted(_leaves(tree), key=lambda leaf: leaf[0])
        )

    def _undone(self, settings: tuple[Setting, ...], name: str) -> tuple[Undone, ...]:
        """Return what does not count: what another file undid, and sections that this version does not read."""
        now = {one.key: one.value for one in settings}
        decides = Origin(self.files[0].path if self.files else "")
        for file in self.files:
            if file.said_version:
                decides = Origin(file.path, file.text, ("version",))
        found = [Undone(one, winner, now.get(one.key)) for one, winner in self.undone]
        for plugin in _SECTIONS:
            if plugin != name:
                found += [Undone(one, decides) for _, one in _leaves(self.plugins.get(plugin, {}))]
        return tuple(found)

    def _listed(self, key: str) -> tuple[str, ...]:
        said = self.whole.get(key)
        return said.value if isinstance(said, Setting) and isinstance(said.value, tuple) else ()

    def _refusal(self) -> str | None:
        """Return why this release does not start with these files, None if it does."""
        release = ".".join(str(one) for one in self.release[:3])
        highest = next((most for since, before, most in _HIGHEST if since <= self.release < before), None)
        root = self.files[0].said_version if self.files else 0
        for file in self.files:
            where = Origin(file.path, file.text, ("version",))
            if highest is not None and self.version > highest and file.version == self.version:
                return f"{where} has version {file.version}, containerd {release} reads up to {highest}"
            if self.release[:2] == _EACH_FILE_MIGRATES_SINCE and file.version > root > 0:
                return f"{where} has version {file.version}, more than the {root} of {self.files[0].path}"
            if self.merges and file.text.startswith("\ufeff"):
                return f"{file.path}:1 begins with a byte order mark, which containerd {release} takes for no TOML"
        if not self.merges and self.version > 1:
            for file, plugin, _ in self.parts:
                if not self._is_uri(plugin):
                    where = Origin(file.path, file.text, ("plugins", plugin))
                    return f"{where} has plugin '{plugin}' of version 1 beside files of version {self.version}"
        return self._refused_plugin()

    def _refused_plugin(self) -> str | None:
        for file in self.files:
            if self.version == 1 or (self.merges and file.version == 1):
                continue
            for key in _PLUGIN_LISTS:
                for name in strings(file.data.get(key), file.path):
                    if not self._is_uri(name):
                        where = Origin(file.path, file.text, (key,))
                        return f"{where} has '{name}' in {key}, a name of version 1 beside version {self.version}"
        return None

    def _is_uri(self, plugin: str) -> bool:
        if self.merges:
            return "." in plugin
        return len(plugin.split(".")) >= _URI_PARTS and (self.release < (1, 7) or plugin.startswith("io.containerd."))


def _attributed(found: Configuration, parts: list[tuple[File, Table, str]]) -> Configuration:
    """Name what set each handler, and what files set for NVIDIA in vain."""
    setter = {handler: _origin(file, handler) for file, part, _ in parts for handler, _ in runtimes(part, file.path)}
    lost: list[Lost] = []
    last = Origin(parts[-1][0].path, parts[-1][0].text, ("plugins", parts[-1][2])) if parts else Origin("")
    for file, part, _ in parts:
        for handler, fields in runtimes(part, file.path):
            origin = _origin(file, handler)
            mine, now = _handler(handler, fields, origin), found.find(handler)
            if not mine.is_nvidia:
                continue
            what = f"handler '{handler}' with {mine.binary or 'no BinaryName'}"
            if now is None:
                lost.append(Lost(what, origin, last, f"no handler '{handler}'"))
            elif now.binary != mine.binary and setter[handler] != origin:
                instead = f"handler '{handler}' with {now.binary or 'no BinaryName'}"
                lost.append(Lost(what, origin, setter[handler], instead))
        said = text_of(as_table(part.get("containerd"), file.path), "default_runtime_name", file.path)
        if said is not None and said != found.default and names_nvidia(said) and file.path != last.path:
            lost.append(
                Lost(f"default runtime '{said}'", _origin(file, None), last, f"default runtime '{found.default}'")
            )
    handlers = tuple(msgspec.structs.replace(one, origin=setter.get(one.name)) for one in found.handlers)
    return msgspec.structs.replace(found, handlers=handlers, lost=tuple(lost))


def _tagged(file: File, value: object, key: tuple[str, ...]) -> object:
    if isinstance(value, dict):
        return _table_of(file, value, key)
    return Setting(key, value, Origin(file.path, file.text, key))


def _table_of(file: File, value: object, key: tuple[str, ...]) -> dict[str, object]:
    table = as_table(value, f"{file.path}: {'.'.join(key)}")
    return {name: _tagged(file, one, (*key, name)) for name, one in table.items()}


def _leaves(value: object, key: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Setting]]:
    if isinstance(value, Setting):
        return [(key, value)]
    tables = value if isinstance(value, dict) else {}
    return [leaf for name, one in tables.items() for leaf in _leaves(one, (*key, name))]


def _first_origin(value: object) -> Origin | None:
    leaves = _leaves(value)
    return leaves[0][1].origin if leaves else None


def _plain(value: Table) -> dict[str, object]:
    """Return a table without what tells where its values are written."""
    return {
        key: one.value if isinstance(one, Setting) else _plain(one) if isinstance(one, dict) else one
        for key, one in value.items()
    }


def _origin(file: File, handler: str | None) -> Origin:
    """Return where a file has a handler, or the default's name, under whichever name of the section."""
    for name in _SECTIONS:
        section = as_table(file.plugins.get(name), file.path)
        engine = as_table(section.get("containerd"), file.path)
        key = ("plugins", name, "containerd", *(("runtimes", handler) if handler else ("default_runtime_name",)))
        if (handler in as_table(engine.get("runtimes"), file.path)) if handler else "default_runtime_name" in engine:
            return Origin(file.path, file.text, key)
    return Origin(file.path, file.text, ("plugins",))


def _configuration(part: Table, plugins: Table, where: str, *, is_1x: bool) -> Configuration:
    engine = as_table(part.get("containerd"), f"{where}: containerd")
    handlers = {name: _handler(name, fields, None) for name, fields in runtimes(part, where)}
    said = engine.get("default_runtime_name", _DEFAULT)
    default = "" if said == "" else text_of(engine, "default_runtime_name", where) or _DEFAULT
    legacy = as_table(engine.get("default_runtime"), f"{where}: default_runtime")
    if is_1x and legacy.get("runtime_type"):  # the deprecated table is the handler "default", and wins
        handlers["default"] = _handler("default", legacy, None)
        default = "default"
    enable = part.get("enable_cdi")
    nri = as_table(plugins.get(NRI), f"{where}: plugins.{NRI}").get("disable")
    folders = part.get("cdi_spec_dirs")
    return Configuration(
        tuple(handlers[name] for name in sorted(handlers)),
        default,
        enable if isinstance(enable, bool) else None,
        None if folders is None else strings(folders, f"{where}: cdi_spec_dirs"),
        nri_disabled=nri if isinstance(nri, bool) else None,
        labels_containers=part.get("enable_selinux") is True,
    )


def _refuse_types(fields: Table, origin: Origin) -> None:
    """Refuse a handler's field of a type that containerd refuses, and say on which line it stands.

    Raises:
        ConfigurationError: there is one.
    """
    for key, kind, wanted in (("runtime_type", str, "a string"), ("options", dict, "a table")):
        value = fields.get(key, kind())
        if not isinstance(value, kind):
            where = Origin(origin.path, origin.text, (*origin.key, key))
            msg = f"{where}: '{key}' is {value!r}, expected {wanted}"
            raise ConfigurationError(msg)


def _handler(name: str, fields: Table, origin: Origin | None) -> Handler:
    where = f"runtimes.{name}"
    options = as_table(fields.get("options"), f"{where}: options")
    kind = text_of(fields, "runtime_type", where) or ""
    binary = text_of(options, "BinaryName", where)
    if binary is None and not options and kind == _LINUX_V1:
        binary = text_of(fields, "runtime_engine", where)  # the shim of 1.x alone reads it
    systemd = options.get("SystemdCgroup")
    return Handler(name, binary, kind, systemd if isinstance(systemd, bool) else None, origin)


def _meaning(found: Configuration) -> tuple[tuple[str, str | None, str], ...]:
    """Return the handlers without what only the text of files tells; runc is built in, so that it is there or not."""
    return tuple((one.name, one.binary, one.runtime_type) for one in found.handlers if one.name != _DEFAULT)
