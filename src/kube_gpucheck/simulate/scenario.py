"""Builds a bundle from a recipe: a base, and what is different from it.

A recipe is one YAML file; DESIGN.md ("Scenarios and expectations") shows one. It changes evidence
and never says what must come out: expectations stand in files of their own.
"""

import datetime
import difflib
import errno
import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

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
from kube_gpucheck.evidence.names import NEVER
from kube_gpucheck.evidence.store import is_safe
from kube_gpucheck.model import MissingEvidence, MissingKind
from kube_gpucheck.simulate.generate import generated_files, write_generated
from kube_gpucheck.simulate.generated.plan import GeneratedCluster


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

    base: str = ""
    generate: GeneratedCluster | None = None
    about: str = ""
    at: Annotated[datetime.datetime, msgspec.Meta(tz=True)] | None = None
    alive: bool = False
    provenance: str | None = None
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
        path = self._scenarios / f"{name}.yaml"
        if is_safe(name) and path.is_file():
            self._save(path, name, folder)
            return
        manifest, files = self._make(name, ())
        write_bundle(folder, manifest, files)

    def save_recipe(self, path: Path, folder: Path) -> None:
        """Write the bundle that a recipe anywhere builds into a folder; its `from` names what is here.

        Creates the folder.

        Raises:
            ScenarioError: the recipe is wrong.
            BundleError: the folder cannot be written.
        """
        self._save(path, _NO_NAME.sub("-", path.stem).strip("-") or "recipe", folder)

    def _save(self, path: Path, name: str, folder: Path) -> None:
        recipe = _recipe(path)
        spec = recipe.generate
        if spec is not None and msgspec.structs.replace(recipe, about="") == Recipe(generate=spec):
            # anything else in the recipe is built in memory
            write_generated(folder, spec, self._host(spec, (name,)))
            return
        manifest, files = self._cook(path, recipe, name, ())
        write_bundle(folder, manifest, files)

    def _host(self, spec: GeneratedCluster, above: tuple[str, ...]) -> Bundle | None:
        """Return the bundle whose reads the generated nodes are to have, None where they have none."""
        if not spec.host:
            return None
        manifest, files = self._make(spec.host, above)
        return memory_bundle(spec.host, {**files, "bundle.json": encode_manifest(manifest, files)})

    def _make(self, name: str, above: tuple[str, ...]) -> tuple[Manifest, dict[str, bytes]]:
        if name in above:
            chain = " from ".join((*above, name))
            msg = f"scenario '{name}': its bases form a loop ({chain}); start one of them from a bundle"
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
        return self._cook(path, _recipe(path), name, above)

    def _cook(self, path: Path, recipe: Recipe, name: str, above: tuple[str, ...]) -> tuple[Manifest, dict[str, bytes]]:
        """Return what a recipe makes of its base."""
        if recipe.generate is None:
            manifest, files = self._make(recipe.base, (*above, name))
        else:
            manifest, files = generated_files(recipe.generate, self._host(recipe.generate, (*above, name)))
        return _Kitchen(path, recipe, manifest, files).cook(name)


def _recipe(path: Path) -> Recipe:
    try:
        recipe = msgspec.convert(yaml.load(path.read_bytes(), _OnceLoader), Recipe, strict=False)  # noqa: S506  a safe one
    except (yaml.YAMLError, msgspec.ValidationError, OSError, RecursionError) as error:
        msg = f"{path}: {' '.join(str(error).split())}; the recipe's fields are described in docs/scenarios.md"
        raise ScenarioError(msg) from error
    if bool(recipe.base) == (recipe.generate is not None):
        msg = f"{path}: a recipe starts 'from' a bundle or scenario, or it has 'generate'; give one of the two"
        raise ScenarioError(msg)
    if recipe.provenance not in _PROVENANCES:
        said = "a recipe is never that of a real cluster, and its reports say 'simulated'"
        msg = f"{path}: provenance: '{recipe.provenance}': {said}; write hand-made or generated, or leave it out"
        raise ScenarioError(msg)
    return recipe


class _OnceLoader(yaml.SafeLoader):
    """Reads YAML, and refuses a key that is given twice: the first would be lost in silence."""

    def compose_mapping_node(self, anchor: Any) -> Any:  # noqa: ANN401  PyYAML's
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                problem = f"the key '{key.value}' is given twice; keep one of them"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add((key.tag, key.value))
        return node


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
        self._telemetry = dict.fromkeys(manifest.asked.telemetry)
        self._workload = dict.fromkeys(manifest.asked.workload)
        self._missing = {(one.evidence, one.node): one for one in manifest.missing}

    def cook(self, name: str) -> tuple[Manifest, dict[str, bytes]]:
        recipe, manifest = self._recipe, self._manifest
        self._ask(recipe.asked)
        self._live()
        self._serve()
        for at, one in enumerate(recipe.delete):
            self._delete(f"delete[{at}]", one)
        for kind, added in recipe.add.items():
            self._add(kind, added)
        for at, change in enumerate(recipe.patch):
            self._patch(f"patch[{at}]", change)
        for node, reads in recipe.host.items():
            self._check_node(node)
            self._reads(node, reads)
        for place, content in recipe.workloads.items():
            self._workload[place] = None
            self._put("workloads", f"workloads/{place}.json", _encode(content))
            self._missing.pop((f"workload/{place}", None), None)
        for lost in recipe.missing:
            self._lose(lost)
        gathered_at = recipe.at or manifest.run.gathered_at
        record = msgspec.structs.replace(
            manifest.run,
            id=f"scenario-{name.replace('/', '-')}",
            started=gathered_at - (manifest.run.gathered_at - manifest.run.started),
            gathered_at=gathered_at,
            source=f"scenario {name}",
            options={**manifest.run.options, **recipe.options},
        )
        made = msgspec.structs.replace(
            manifest,
            run=record,
            provenance=recipe.provenance or ("hand-made" if recipe.generate is None else manifest.provenance),
            modelled_on=recipe.modelled_on or manifest.modelled_on or recipe.base or None,
            not_real=tuple(dict.fromkeys((*manifest.not_real, *recipe.not_real))),
            asked=Asked(
                tuple(self._api),
                tuple(self._logs),
                {node: tuple(keys) for node, keys in self._host.items()},
                tuple(self._telemetry),
                tuple(self._workload),
            ),
            missing=tuple(self._missing.values()),
        )
        return made, self._files

    def _fail(self, field: str, reason: str) -> ScenarioError:
        return ScenarioError(f"{self._path}: {field}: {reason}")

    def _put(self, field: str, path: str, content: bytes) -> None:
        if not is_safe(path):
            raise self._fail(field, f"'{path}' leads out of the bundle")
        self._files[path] = content

    def _ask(self, asked: Asked) -> None:
        for kind in asked.api:
            self._refuse_secrets("asked.api", kind)
        self._api.update(dict.fromkeys(asked.api))
        self._logs.update(dict.fromkeys(asked.logs))
        self._telemetry.update(dict.fromkeys(asked.telemetry))
        self._workload.update(dict.fromkeys(asked.workload))
        for node, keys in asked.host.items():
            self._host.setdefault(node, {}).update(dict.fromkeys(keys))

    def _live(self) -> None:
        """Move leases and heartbeats with the clock; a heartbeat that was never renewed stays where it is."""
        if not self._recipe.alive:
            return
        if self._recipe.at is None:
            raise self._fail("alive", "it moves leases and heartbeats to 'at', which is not given")
        later = self._recipe.at - self._manifest.run.gathered_at
        for kind in ("leases.coordination.k8s.io", "nodes"):
            items = self._items("alive", kind)
            for item in items:
                if kind == "nodes":
                    for one in item.get("status", {}).get("conditions", ()):
                        if one.get("lastHeartbeatTime") != one.get("lastTransitionTime"):
                            one["lastHeartbeatTime"] = self._moved(one["lastHeartbeatTime"], later)
                elif item.get("spec", {}).get("renewTime"):
                    item["spec"]["renewTime"] = self._moved(item["spec"]["renewTime"], later)
            self._store(kind, items)

    def _moved(self, time: str, later: datetime.timedelta) -> str:
        try:
            moved = datetime.datetime.fromisoformat(time.replace("Z", "+00:00")) + later
        except (AttributeError, ValueError, OverflowError) as error:
            raise self._fail("alive", f"'{time}' in the base is no time that can be moved") from error
        return moved.isoformat().replace("+00:00", "Z")

    def _serve(self) -> None:
        change = self._recipe.discovery
        if change == ServedGroups():
            return
        path = "cluster/discovery.json"
        record = self._json(path, {"version": "", "groups": []})
        new = {group.name: msgspec.to_builtins(group) for group in change.add}
        served = {one["name"] for one in record["groups"]}
        for gone in change.remove:
            if gone not in served:
                raise self._fail("discovery.remove", f"the base serves no group '{gone}'")
        record["groups"] = [one for one in record["groups"] if one["name"] not in {*change.remove, *new}] + list(
            new.values()
        )
        record["version"] = change.version or record["version"]
        self._files[path] = _encode(record)
        self._api["discovery"] = None
        self._missing.pop(("api/discovery", None), None)

    def _items(self, field: str, kind: str) -> list[dict[str, Any]]:
        if not _KIND.fullmatch(kind):
            raise self._fail(field, f"'{kind}' is no kind; write the plural with its group, as in 'daemonsets.apps'")
        self._refuse_secrets(field, kind)
        found = self._json(f"cluster/{kind}.json", {"items": []}).get("items")
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise self._fail(field, f"the base's cluster/{kind}.json is no list of objects and cannot be changed")
        return list(found)

    def _store(self, kind: str, items: list[dict[str, Any]]) -> None:
        self._files[f"cluster/{kind}.json"] = _encode(
            {**self._json(f"cluster/{kind}.json", {"kind": "List", "apiVersion": "v1"}), "items": items}
        )
        self._api[kind] = None
        self._missing.pop((f"api/{kind}", None), None)

    def _json(self, path: str, default: dict[str, Any]) -> dict[str, Any]:
        try:
            return dict(msgspec.json.decode(self._files[path])) if path in self._files else default
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._fail(path, f"the base's file cannot be changed: {error}") from error

    def _delete(self, field: str, one: Removal) -> None:
        if one.kind == "logs":
            path = self._log_path(field, one.name)
            if self._files.pop(path, None) is None:
                there = _some(self._logs, one.name)
                raise self._fail(field, f"the base has no log '{one.name}'; it has {there}")
            self._logs.pop(one.name, None)
            return
        items = self._items(field, one.kind)
        left = [item for item in items if not _is(item, one.name, one.namespace)]
        if len(left) == len(items) and one.name != "*":
            raise self._no_such(field, one, items)
        self._store(one.kind, [] if one.name == "*" else left)

    def _add(self, kind: str, added: Any) -> None:  # noqa: ANN401  YAML
        field = f"add.{kind}"
        if kind in {"logs", "node_logs"}:
            if not isinstance(added, dict):
                raise self._fail(field, f"expected names with their texts, got {type(added).__name__}")
            for name, text in added.items():
                self._add_log(field, str(name), self._text(field, text), on_node=kind == "node_logs")
            return
        if not isinstance(added, list):
            raise self._fail(field, f"expected a list of objects or of files' names, got {type(added).__name__}")
        items = self._items(field, kind)
        documents = (document for one in added for document in self._documents(field, one))
        for place, document in enumerate(documents):
            metadata = document.get("metadata")
            if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
                has = ", ".join(map(str, document)) or "nothing"
                way_out = "give it one, as in '{metadata: {name: a}}'"
                raise self._fail(f"{field}[{place}]", f"the object has no metadata.name, only {has}; {way_out}")
            items = [item for item in items if not _is(item, metadata["name"], metadata.get("namespace"))]
            items.append(document)
        self._store(kind, items)

    def _add_log(self, field: str, name: str, text: str, *, on_node: bool) -> None:
        if not on_node:
            self._put(field, self._log_path(field, name), text.encode())
            self._logs[name] = None
            self._missing.pop((f"logs/{name}", None), None)
            return
        node, slash, unit = name.partition("/")
        if not slash or "/" in unit:
            raise self._fail(field, f"'{name}' is no node's log; write node/unit")
        self._put(field, f"nodes/{node}/logs/{unit}.log", text.encode())
        self._host.setdefault(node, {})[f"log:{unit}"] = None
        self._missing.pop((f"host/log:{unit}", node), None)

    def _documents(self, field: str, one: object) -> Iterator[dict[str, Any]]:
        found: list[object] = [one]
        if isinstance(one, str):
            try:
                found = [document for document in yaml.load_all(self._beside(field, one), _OnceLoader) if document]
            except (yaml.YAMLError, RecursionError) as error:
                raise self._fail(field, f"'{one}' is not YAML: {' '.join(str(error).split())}") from error
        for document in found:
            if not isinstance(document, dict):
                raise self._fail(field, f"expected an object or a file's name, got {type(document).__name__}")
            yield document

    def _patch(self, field: str, change: Patch) -> None:
        items = self._items(field, change.kind)
        hits = [place for place, item in enumerate(items) if _is(item, change.name, change.namespace)]
        if not hits:
            raise self._no_such(field, change, items)
        if len(hits) > 1:
            raise self._fail(
                field, f"{len(hits)} objects are {change.kind} '{change.name}', expected one; name its namespace"
            )
        items[hits[0]] = merge(items[hits[0]], change.merge)
        self._store(change.kind, items)

    def _no_such(self, field: str, wanted: Patch | Removal, items: list[dict[str, Any]]) -> ScenarioError:
        """Return the error that there is no such object, with those that there are."""
        kind, name, namespace = wanted.kind, wanted.name, wanted.namespace
        where = f" in namespace '{namespace}'" if namespace else ""
        if not items:
            kinds = [path.partition("/")[2].removesuffix(".json") for path in self._files if _LIST.fullmatch(path)]
            return self._fail(
                field, f"the base has no {kind} '{name}'{where}, nor any other; it has {_some(kinds, kind)}"
            )
        there = [_named(item) for item in items if namespace is None or _is_in(item, namespace)]
        other = [_named(item) for item in items if _is(item, name, None)]
        if other:
            return self._fail(field, f"the base has no {kind} '{name}'{where}; it has {_some(other, name)}")
        return self._fail(field, f"the base has no {kind} '{name}'{where}; there it has {_some(there, name)}")

    def _refuse_secrets(self, field: str, kind: str) -> None:
        if kind.partition(".")[0] in NEVER:
            raise self._fail(field, f"'{kind}': gpucheck reads no Secret, and no bundle holds one; leave it out")

    def _check_node(self, node: str) -> None:
        """Refuse reads on a node that is not there, where it is known which are."""
        known = {str(item.get("metadata", {}).get("name")) for item in self._items(f"host.{node}", "nodes")}
        if known and node not in known and node not in self._host:
            nodes = [*known, *self._host]
            raise self._fail(f"host.{node}", f"the base has no node '{node}'; it has {_some(nodes, node)}")

    def _reads(self, node: str, reads: Mapping[str, str | dict[str, Any] | None]) -> None:
        path = f"nodes/{node}/host.json"
        record = self._json(path, {"format": HOST_FORMAT, "reads": {}})
        table = dict(record["reads"])
        for key, given in reads.items():
            field = f"host.{node}.'{key}'"
            if key in _HOST_FACTS:
                if not isinstance(given, str):
                    raise self._fail(field, f"expected a text, got {type(given).__name__}")
                record[key] = given
                continue
            if not _READ.match(key):
                raise self._fail(field, f"no read; write <verb>:<argument> with a verb of {_VERBS}, or {_OR_FACTS}")
            self._host.setdefault(node, {})[key] = None
            self._missing.pop((f"host/{key}", node), None)
            if given is None:
                table.pop(key, None)
            else:
                table[key] = self._read(field, given)
        self._put(f"host.{node}", path, _encode({**record, "reads": table}))

    def _read(self, field: str, given: str | dict[str, Any]) -> dict[str, Any]:
        if isinstance(given, str):
            return {"text": given}
        value = {name: one for name, one in given.items() if name != "from"}
        if "from" in given:
            value["text"] = self._text(field, {"from": given["from"]})
        unknown = sorted(set(value) - set(Read.__struct_fields__))
        if unknown:
            raise self._fail(field, f"a read has no '{unknown[0]}'; it has {', '.join(Read.__struct_fields__)} or from")
        if not _ANSWERS & set(value):
            raise self._fail(field, f"a read without an answer; give one of {', '.join(sorted(_ANSWERS))} or from")
        given_ones = sorted(_ANSWERS & set(value))
        if len(given_ones) > 1 and given_ones != ["code", "text"]:
            raise self._fail(field, f"{' and '.join(given_ones)}: a read has one answer; give one of them")
        if "error" in value and value["error"] not in _ERRORS:
            near = difflib.get_close_matches(str(value["error"]).upper(), _ERRORS, n=3) or [
                "EACCES",
                "EIO",
                "ETIMEDOUT",
            ]
            raise self._fail(field, f"'{value['error']}' is no errno's name; write one such as {' or '.join(near)}")
        try:
            msgspec.convert(value, Read)
        except msgspec.ValidationError as error:
            raise self._fail(field, str(error)) from error
        return value

    def _lose(self, lost: Lost) -> None:
        family, _, rest = lost.evidence.partition("/")
        reason = lost.reason or f"{lost.evidence}: {lost.kind.value}"
        if lost.kind is MissingKind.NOT_ASKED:
            raise self._fail("missing", f"'{lost.evidence}': what is missing was asked for; not-asked is no kind of it")
        match family:
            case "api" if rest:
                self._api[rest] = None
                self._files.pop(f"cluster/{rest}.json", None)
            case "logs" if rest:
                self._files.pop(self._log_path("missing", rest), None)
                self._logs[rest] = None
            case "host" if lost.node is not None:
                self._lose_read(lost.node, rest)
            case "workload" if rest:
                self._workload[rest] = None
                self._files.pop(f"workloads/{rest}.json", None)
            case _:
                raise self._fail(
                    "missing", f"'{lost.evidence}': expected api/…, logs/…, workload/… or host/… with its node"
                )
        self._missing[lost.evidence, lost.node] = MissingEvidence(
            lost.evidence, lost.kind, reason, lost.evidence, lost.node
        )

    def _lose_read(self, node: str, key: str) -> None:
        path = f"nodes/{node}/host.json"
        asked = self._host.setdefault(node, {})
        if not key:
            self._files.pop(path, None)
            return
        asked[key] = None
        if key.startswith("log:"):
            self._files.pop(f"nodes/{node}/logs/{key.removeprefix('log:')}.log", None)
            return
        record = self._json(path, {"format": HOST_FORMAT, "reads": {}})
        reads = {name: read for name, read in record["reads"].items() if name != key}
        self._put("missing", path, _encode({**record, "reads": reads}))

    def _log_path(self, field: str, name: str) -> str:
        previous = ".previous" if name.endswith("/previous") else ""
        parts = name.removesuffix("/previous").split("/")
        if len(parts) != 3 or not all(parts):  # noqa: PLR2004  namespace, pod, container
            raise self._fail(field, f"'{name}' is no log; write namespace/pod/container")
        return f"cluster/logs/{'_'.join(parts)}{previous}.log"

    def _text(self, field: str, given: object) -> str:
        if isinstance(given, str):
            return given
        if not isinstance(given, dict) or set(given) != {"from"} or not isinstance(given["from"], str):
            raise self._fail(field, "expected a text, or 'from' with a file's name")
        try:
            return self._beside(field, given["from"]).decode()
        except UnicodeDecodeError as error:
            raise self._fail(field, f"'{given['from']}' is not UTF-8: {error}") from error

    def _beside(self, field: str, name: str) -> bytes:
        if not is_safe(name):
            way_out = f"put it below {self._path.parent}, as 'objects/{Path(name).name}'"
            raise self._fail(field, f"'{name}' leads out of the recipe's folder; {way_out}")
        try:
            return (self._path.parent / name).read_bytes()
        except OSError as error:
            where = f"files are looked for from {self._path.parent} on"
            raise self._fail(field, f"'{name}': {error.strerror}; {where}") from error


_NO_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")
_PROVENANCES: Final = frozenset({None, "hand-made", "generated"})
_LIST: Final = re.compile(r"cluster/(?!discovery\.)[^/]+\.json")
_SHOWN: Final = 5
_ERRORS: Final = frozenset(errno.errorcode.values()) | {one.name for one in signal.Signals}
"""How a read may have ended: as the host's collector says it, an errno or the signal that ended its child."""
_KIND: Final = re.compile(r"[a-z][a-z0-9]*(?:\.[a-z0-9][a-z0-9.-]*)?")
_READ: Final = re.compile(r"(?:file|list|link|stat|exec|nvml|cuda):.")
_VERBS: Final = "file, list, link, stat, exec, nvml or cuda"
_HOST_FACTS: Final = frozenset({"boot_id", "read_at", "root"})
_OR_FACTS: Final = "boot_id, read_at or root"
_ANSWERS: Final = frozenset({"text", "entries", "code", "absent", "error"})


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


def _some(names: Iterable[str], wanted: str) -> str:
    """Return names, in words: those nearest to the wanted one first, not too many."""
    known = sorted(dict.fromkeys(names))
    near = difflib.get_close_matches(wanted, known, n=_SHOWN, cutoff=0.5)
    shown = list(dict.fromkeys((*near, *known)))[:_SHOWN]
    more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    return ", ".join(shown) + more if shown else "none"


def _named(item: Mapping[str, Any]) -> str:
    metadata = item.get("metadata", {})
    return "/".join(str(metadata[key]) for key in ("namespace", "name") if metadata.get(key))


def _is_in(item: Mapping[str, Any], namespace: str) -> bool:
    return bool(item.get("metadata", {}).get("namespace") == namespace)


def _is(item: Mapping[str, Any], name: str, namespace: str | None) -> bool:
    metadata = item.get("metadata", {})
    return metadata.get("name") == name and (namespace is None or metadata.get("namespace") == namespace)


def _encode(value: object) -> bytes:
    return msgspec.json.encode(value)
