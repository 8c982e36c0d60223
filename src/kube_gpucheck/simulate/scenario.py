"""Builds a bundle from a recipe: a base, and what is different from it.

A recipe is one YAML file; DESIGN.md ("Scenarios and expectations") shows one. It changes evidence
and never says what must come out: expectations stand in files of their own.
"""

import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from kube_gpucheck.errors import ScenarioError
from kube_gpucheck.evidence.bundle import (
    HOST_FORMAT,
    Asked,
    Bundle,
    GroupRecord,
    Manifest,
    Read,
    encode_manifest,
    memory_bundle,
    open_bundle,
    read_manifest,
    write_bundle,
)
from kube_gpucheck.evidence.store import is_safe
from kube_gpucheck.model import MissingEvidence, MissingKind


class Patch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON merge patch (RFC 7386) of one object."""

    kind: str
    name: str
    merge: dict[str, Any]
    namespace: str | None = None


class Removal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object (or a log, `kind: logs`, `name: ns/pod/container`) that is no more."""

    kind: str
    name: str
    namespace: str | None = None


class Lost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Evidence that was asked for and could not be had."""

    evidence: str
    kind: MissingKind
    node: str | None = None
    reason: str = ""


class ServedGroups(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """API groups that the server has gained or lost."""

    add: tuple[GroupRecord, ...] = ()
    remove: tuple[str, ...] = ()
    version: str | None = None


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"base": "from"}):
    """A scenario's recipe, as it is written."""

    base: str
    about: str = ""
    at: datetime.datetime | None = None
    provenance: str = "hand-made"
    modelled_on: str | None = None
    not_real: tuple[str, ...] = ()
    host: Mapping[str, Mapping[str, str | dict[str, Any] | None]] = {}
    patch: tuple[Patch, ...] = ()
    add: Mapping[str, Any] = {}
    delete: tuple[Removal, ...] = ()
    missing: tuple[Lost, ...] = ()
    asked: Asked = Asked()
    discovery: ServedGroups = ServedGroups()
    workloads: Mapping[str, dict[str, Any]] = {}
    options: Mapping[str, str] = {}


class Library:
    """The scenarios and bundles of one fixtures folder."""

    def __init__(self, fixtures: Path) -> None:
        """Remember the folder."""
        self._scenarios = fixtures / "scenarios"
        self._bundles = fixtures / "bundles"

    def scenarios(self) -> tuple[str, ...]:
        """Return the names of all scenarios, in order."""
        found = (
            path.relative_to(self._scenarios).with_suffix("")
            for path in self._scenarios.rglob("*.yaml")
            if not path.name.startswith("_")
        )
        return tuple(sorted(path.as_posix() for path in found if "objects" not in path.parts))

    def bundles(self) -> tuple[str, ...]:
        """Return the names of all bundles, in order."""
        return tuple(
            sorted(path.parent.relative_to(self._bundles).as_posix() for path in self._bundles.rglob("bundle.json"))
        )

    def about(self, name: str) -> str:
        """Return a scenario's one line.

        Raises:
            ScenarioError: there is no such scenario, or its recipe is wrong.
        """
        return _recipe(self._scenarios / f"{name}.yaml").about

    def has(self, name: str) -> bool:
        """Tell whether a scenario or bundle of that name is here."""
        return is_safe(name) and (
            (self._scenarios / f"{name}.yaml").is_file() or (self._bundles / name / "bundle.json").is_file()
        )

    def build(self, name: str) -> Bundle:
        """Return the bundle that a scenario builds, or the bundle of that name.

        Raises:
            ScenarioError: there is none of that name, its recipe is wrong, or the chain of bases has a loop.
        """
        if is_safe(name) and (self._bundles / name / "bundle.json").is_file():
            return open_bundle(self._bundles / name)
        manifest, files = self._make(name, ())
        return memory_bundle(name, {**files, "bundle.json": encode_manifest(manifest, files)})

    def save(self, name: str, folder: Path) -> None:
        """Write the bundle that a scenario builds into a folder. Creates the folder.

        Raises:
            ScenarioError: there is none of that name, or its recipe is wrong.
            BundleError: the folder cannot be written.
        """
        manifest, files = self._make(name, ())
        write_bundle(folder, manifest, files)

    def _make(self, name: str, above: tuple[str, ...]) -> tuple[Manifest, dict[str, bytes]]:
        if name in above:
            msg = f"scenario '{name}': its bases form a loop ({' from '.join((*above, name))}); start one of them from a bundle"
            raise ScenarioError(msg)
        if is_safe(name) and (self._bundles / name / "bundle.json").is_file():
            store = open_bundle(self._bundles / name).store
            files = {path: store.read(path) or b"" for path in store.paths() if path != "bundle.json"}
            return read_manifest(store), files
        path = self._scenarios / f"{name}.yaml"
        if not is_safe(name) or not path.is_file():
            origin = f" (named by 'from' in '{above[-1]}')" if above else ""
            msg = f"no scenario or bundle is called '{name}'{origin}; 'gpucheck list scenarios' shows them"
            raise ScenarioError(msg)
        recipe = _recipe(path)
        manifest, files = self._make(recipe.base, (*above, name))
        return _Kitchen(path, recipe, manifest, files).cook(name)


def _recipe(path: Path) -> Recipe:
    try:
        return msgspec.convert(yaml.safe_load(path.read_bytes()), Recipe, strict=False)
    except (yaml.YAMLError, msgspec.ValidationError, OSError, RecursionError) as error:
        msg = f"{path}: {' '.join(str(error).split())}; the recipe's fields are described in docs/scenarios.md"
        raise ScenarioError(msg) from error


class _Kitchen:
    """Applies one recipe to one base."""

    def __init__(self, path: Path, recipe: Recipe, manifest: Manifest, files: dict[str, bytes]) -> None:
        self._path = path
        self._recipe = recipe
        self._manifest = manifest
        self._files = files
        self._api = dict.fromkeys(manifest.asked.api)
        self._logs = dict.fromkeys(manifest.asked.logs)
        self._host = {node: dict.fromkeys(keys) for node, keys in manifest.asked.host.items()}
        self._workload = dict.fromkeys(manifest.asked.workload)
        self._missing = {(one.evidence, one.node): one for one in manifest.missing}

    def cook(self, name: str) -> tuple[Manifest, dict[str, bytes]]:
        recipe, manifest = self._recipe, self._manifest
        self._ask(recipe.asked)
        self._serve()
        for one in recipe.delete:
            self._delete(one)
        for kind, added in recipe.add.items():
            self._add(kind, added)
        for change in recipe.patch:
            self._patch(change)
        for node, reads in recipe.host.items():
            self._reads(node, reads)
        for place, content in recipe.workloads.items():
            self._workload[place] = None
            self._files[f"workloads/{place}.json"] = _encode(content)
        for lost in recipe.missing:
            self._lose(lost)
        record = msgspec.structs.replace(
            manifest.run,
            id=f"scenario-{name.replace('/', '-')}",
            gathered_at=recipe.at or manifest.run.gathered_at,
            source=f"scenario {name}",
            options={**manifest.run.options, **recipe.options},
        )
        made = msgspec.structs.replace(
            manifest,
            run=record,
            provenance=recipe.provenance,
            modelled_on=recipe.modelled_on or manifest.modelled_on or recipe.base,
            not_real=tuple(dict.fromkeys((*manifest.not_real, *recipe.not_real))),
            asked=Asked(
                tuple(self._api),
                tuple(self._logs),
                {node: tuple(keys) for node, keys in self._host.items()},
                manifest.asked.telemetry,
                tuple(self._workload),
            ),
            missing=tuple(self._missing.values()),
        )
        return made, self._files

    def _fail(self, field: str, reason: str) -> ScenarioError:
        return ScenarioError(f"{self._path}: {field}: {reason}")

    def _ask(self, asked: Asked) -> None:
        self._api.update(dict.fromkeys(asked.api))
        self._logs.update(dict.fromkeys(asked.logs))
        self._workload.update(dict.fromkeys(asked.workload))
        for node, keys in asked.host.items():
            self._host.setdefault(node, {}).update(dict.fromkeys(keys))

    def _serve(self) -> None:
        change = self._recipe.discovery
        if change == ServedGroups():
            return
        path = "cluster/discovery.json"
        record = self._json(path, {"version": "", "groups": []})
        new = {group.name: msgspec.to_builtins(group) for group in change.add}
        record["groups"] = [one for one in record["groups"] if one["name"] not in {*change.remove, *new}] + list(
            new.values()
        )
        record["version"] = change.version or record["version"]
        self._files[path] = _encode(record)
        self._api["discovery"] = None

    def _items(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._json(f"cluster/{kind}.json", {"items": []})["items"]
        return found

    def _store(self, kind: str, items: list[dict[str, Any]]) -> None:
        self._files[f"cluster/{kind}.json"] = _encode(
            {**self._json(f"cluster/{kind}.json", {"kind": "List", "apiVersion": "v1"}), "items": items}
        )
        self._api[kind] = None

    def _json(self, path: str, default: dict[str, Any]) -> dict[str, Any]:
        try:
            return dict(msgspec.json.decode(self._files[path])) if path in self._files else default
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._fail(path, f"the base's file cannot be changed: {error}") from error

    def _delete(self, one: Removal) -> None:
        if one.kind == "logs":
            namespace, pod, container = self._log_name("delete", one.name)
            self._files.pop(f"cluster/logs/{namespace}_{pod}_{container}.log", None)
            self._logs.pop(one.name, None)
            return
        items = self._items(one.kind)
        left = [item for item in items if not _is(item, one.name, one.namespace)]
        if len(left) == len(items) and one.name != "*":
            raise self._fail("delete", f"the base has no {one.kind} '{one.name}'")
        self._store(one.kind, [] if one.name == "*" else left)

    def _add(self, kind: str, added: Any) -> None:  # noqa: ANN401  YAML
        if kind == "logs":
            for name, text in dict(added).items():
                namespace, pod, container = self._log_name("add.logs", name)
                self._files[f"cluster/logs/{namespace}_{pod}_{container}.log"] = self._text(text).encode()
                self._logs[name] = None
            return
        if kind == "node_logs":
            for name, text in dict(added).items():
                node, _, unit = str(name).partition("/")
                self._files[f"nodes/{node}/logs/{unit}.log"] = self._text(text).encode()
                self._host.setdefault(node, {})[f"log:{unit}"] = None
            return
        items = self._items(kind)
        for one in added or ():
            for document in self._documents(one):
                metadata = document.get("metadata", {})
                items = [item for item in items if not _is(item, metadata.get("name", ""), metadata.get("namespace"))]
                items.append(document)
        self._store(kind, items)

    def _documents(self, one: object) -> Iterator[dict[str, Any]]:
        if isinstance(one, str):
            try:
                yield from (document for document in yaml.safe_load_all(self._beside(one)) if document)
            except yaml.YAMLError as error:
                raise self._fail("add", f"'{one}' is not YAML: {error}") from error
        elif isinstance(one, dict):
            yield one
        else:
            raise self._fail("add", f"expected an object or a file's name, got {type(one).__name__}")

    def _patch(self, change: Patch) -> None:
        items = self._items(change.kind)
        hits = [place for place, item in enumerate(items) if _is(item, change.name, change.namespace)]
        if len(hits) != 1:
            raise self._fail(
                "patch", f"{len(hits)} objects are {change.kind} '{change.name}', expected one; name its namespace"
            )
        items[hits[0]] = merge(items[hits[0]], change.merge)
        self._store(change.kind, items)

    def _reads(self, node: str, reads: Mapping[str, str | dict[str, Any] | None]) -> None:
        path = f"nodes/{node}/host.json"
        record = self._json(path, {"format": HOST_FORMAT, "reads": {}})
        table = dict(record["reads"])
        for key, given in reads.items():
            self._host.setdefault(node, {})[key] = None
            if given is None:
                table.pop(key, None)
                continue
            value = (
                {"text": given} if isinstance(given, str) else {"text": self._text(given)} if "from" in given else given
            )
            try:
                msgspec.convert(value, Read)
            except msgspec.ValidationError as error:
                raise self._fail(f"host.{node}.'{key}'", str(error)) from error
            table[key] = value
        self._files[path] = _encode({**record, "reads": table})

    def _lose(self, lost: Lost) -> None:
        family, _, rest = lost.evidence.partition("/")
        reason = lost.reason or f"{lost.evidence}: {lost.kind.value}"
        match family:
            case "api":
                self._api[rest] = None
                self._files.pop(f"cluster/{rest}.json", None)
            case "logs":
                self._logs[rest] = None
                self._files.pop(f"cluster/logs/{rest.replace('/', '_', 2).replace('/previous', '.previous')}.log", None)
            case "host" if lost.node is not None:
                self._host.setdefault(lost.node, {})
                if rest:
                    self._host[lost.node][rest] = None
                    self._files.pop(f"nodes/{lost.node}/logs/{rest.removeprefix('log:')}.log", None)
                else:
                    self._files.pop(f"nodes/{lost.node}/host.json", None)
            case "workload":
                self._workload[rest] = None
                self._files.pop(f"workloads/{rest}.json", None)
            case _:
                raise self._fail(
                    "missing", f"'{lost.evidence}': expected api/…, logs/…, workload/… or host/… with its node"
                )
        self._missing[lost.evidence, lost.node] = MissingEvidence(
            lost.evidence, lost.kind, reason, lost.evidence, lost.node
        )

    def _log_name(self, field: str, name: str) -> tuple[str, str, str]:
        parts = name.replace("/previous", ".previous").split("/")
        if len(parts) != 3:  # noqa: PLR2004  namespace, pod, container
            raise self._fail(field, f"'{name}' is no log; write namespace/pod/container")
        return parts[0], parts[1], parts[2]

    def _text(self, given: str | dict[str, Any]) -> str:
        return given if isinstance(given, str) else self._beside(str(given["from"])).decode()

    def _beside(self, name: str) -> bytes:
        if not is_safe(name):
            raise self._fail("from", f"'{name}' leads out of the scenarios")
        try:
            return (self._path.parent / name).read_bytes()
        except OSError as error:
            raise self._fail("from", f"'{name}': {error.strerror}") from error


def merge(target: Any, patch: Any) -> Any:  # noqa: ANN401  JSON
    """Return the target with a JSON merge patch applied (RFC 7386): null removes, objects merge, the rest replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def _is(item: Mapping[str, Any], name: str, namespace: str | None) -> bool:
    metadata = item.get("metadata", {})
    return metadata.get("name") == name and (namespace is None or metadata.get("namespace") == namespace)


def _encode(value: object) -> bytes:
    return msgspec.json.encode(value)
