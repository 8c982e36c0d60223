"""One run's evidence on disk: `bundle.json`, and the rule that tells unknown from not asked.

Gives documents, logs and host reads as readings; what they mean is the business of the views.
The format is DESIGN.md's, number 1. Only `asked` decides between unknown and not-asked.
"""

import datetime
import hashlib
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec

from kube_gpucheck.errors import BundleError
from kube_gpucheck.evidence.lists import ListRecord, WholeList, read_lines, whole_reason
from kube_gpucheck.evidence.store import FolderStore, MemoryStore, Store, open_archive
from kube_gpucheck.model import Missing, MissingEvidence, MissingKind, Reading, Seen

BUNDLE_FORMAT: Final = 1
HOST_FORMAT: Final = 1
_LOGS: Final = "cluster/logs/"


class RunRecord(msgspec.Struct, frozen=True):
    """Which run gathered the evidence, when, and from where. Times are RFC 3339, UTC."""

    id: str
    started: datetime.datetime
    gathered_at: datetime.datetime
    profile: str = "troubleshoot"
    options: Mapping[str, str] = {}
    source: str = ""


class Asked(msgspec.Struct, frozen=True):
    """What was asked for, whether or not an answer came.

    `api`: plural kinds with their group (`daemonsets.apps`), and `discovery`. `logs`:
    `<namespace>/<pod>/<container>`, with `/previous` for the run before. `host`: the reads of each
    node, `<verb>:<argument>`; `log:<unit>` for `nodes/<node>/logs/<unit>.log`.
    """

    api: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    host: Mapping[str, tuple[str, ...]] = {}
    telemetry: tuple[str, ...] = ()
    workload: tuple[str, ...] = ()


class Manifest(msgspec.Struct, frozen=True, omit_defaults=False):
    """`bundle.json`. `provenance`: live, recorded, hand-made, generated or `imported:<kind>`."""

    format: int
    tool: str
    run: RunRecord
    provenance: str
    asked: Asked
    modelled_on: str | None = None
    not_real: tuple[str, ...] = ()
    missing: tuple[MissingEvidence, ...] = ()
    pruned: tuple[str, ...] = ()
    redacted: Mapping[str, str] = {}
    files: Mapping[str, str] = {}

    @property
    def simulated(self) -> bool:
        """Tell whether a person or a program made this up; every report says so."""
        return self.provenance in {"hand-made", "generated"}


class Read(msgspec.Struct, frozen=True, omit_defaults=True):
    """One verbatim read on a host: exactly one of text, entries, code, absent or error is set.

    `text`: a file's content, a link's target or a command's standard output (`code` is then its exit
    status). `entries`: a folder's or `stat`'s entries. `code` and `value`: an NVML call. `truncated`:
    the head is missing. `filtered`: the text or the entries hold only what this pattern lets through
    (`nvidia|containerd`), so that absence of anything else proves nothing. `error`: errno's name.
    """

    text: str | None = None
    entries: "tuple[Entry, ...] | None" = None
    code: int | None = None
    value: Any = None
    absent: bool = False
    error: str | None = None
    truncated: bool = False
    filtered: str | None = None


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A folder's entry, or what `stat` says of one path.

    `type`: file, dir, link, char, block, socket or fifo. `mode` as `ls` writes it (`crw-rw-rw-`).
    `major` and `minor` of a device. `target` of a link. `modified` RFC 3339 or as the dump has it.
    """

    name: str
    type: str = "file"
    mode: str = ""
    size: int | None = None
    major: int | None = None
    minor: int | None = None
    target: str | None = None
    modified: str | None = None

    @property
    def executable(self) -> bool:
        """Tell whether anybody may execute it."""
        return "x" in self.mode[1:]


class HostRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """`host.json`: verbatim reads on one node. `root`: where the host's root was read from."""

    format: int
    reads: Mapping[str, Read]
    boot_id: str | None = None
    read_at: str | None = None
    root: str = "/"
    uid: int | None = None


class GroupRecord(msgspec.Struct, frozen=True):
    """A served API group. `resources` is `None` where only the group's name is known."""

    name: str
    versions: tuple[str, ...]
    resources: tuple[str, ...] | None = None


class DiscoveryRecord(msgspec.Struct, frozen=True):
    """`cluster/discovery.json`: the server's version, and the groups that it serves ("" is core).

    `complete` is false where an archive tells only of the kinds that were asked for: then a group that
    is not here proves nothing of others.
    """

    version: str
    groups: tuple[GroupRecord, ...]
    complete: bool = True

    def serves(self, kind: str) -> bool:
        """Tell whether `<plural>[.<group>]` is served; a group of unknown resources serves all."""
        plural, _, name = kind.partition(".")
        for group in self.groups:
            if group.name == name:
                return group.resources is None or plural in group.resources
        return name == ""


class Bundle:
    """One run's evidence. Every method gives a reading; none raises for what is absent."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        """Keep the store and the manifest; nothing is read yet."""
        self.store = store
        self.manifest = manifest
        self.trace: set[str] | None = None
        """Where not None, the paths and reads that were looked at are added. Tests of law 2 use it."""
        self._missing = {(one.evidence, one.node): one for one in manifest.missing}
        self._discovery: Reading[DiscoveryRecord] | None = None
        self._hosts: dict[str, Reading[HostRecord]] = {}
        self._asked: dict[str, frozenset[str]] = {}
        self._logs = frozenset(manifest.asked.logs)
        self._pods_with_logs = frozenset("/".join(name.split("/", 2)[:2]) for name in manifest.asked.logs)

    @property
    def gathered_at(self) -> datetime.datetime:
        """The clock of every check."""
        return self.manifest.run.gathered_at

    def with_options(self, options: Mapping[str, str]) -> "Bundle":
        """Return the same evidence under a run with these options besides its own; checks read a few."""
        run = msgspec.structs.replace(self.manifest.run, options={**self.manifest.run.options, **options})
        return Bundle(self.store, msgspec.structs.replace(self.manifest, run=run))

    @property
    def hosts(self) -> tuple[str, ...]:
        """Nodes of which host evidence was asked for, in order of name."""
        return tuple(sorted(self.manifest.asked.host))

    def discovery(self) -> Reading[DiscoveryRecord]:
        """Return what the API serves."""
        if self.trace is not None:
            self.trace.add("cluster/discovery.json")
        if self._discovery is None:
            self._discovery = self._document(
                "cluster/discovery.json",
                DiscoveryRecord,
                asked="discovery" in self.manifest.asked.api,
                evidence="api/discovery",
            )
        return self._discovery

    def kind(self, kind: str, *, unread: bool = False, part: bool = False) -> Reading[ListRecord | None]:
        """Return the raw list of a kind (`daemonsets.apps`); `Seen(None)` where the API does not serve it.

        A list of a kind that is missing as a whole is that of one namespace, read with a tenant's rights: only
        whoever asks for a `part` gets it, for what is not in it may be elsewhere. `unread`: leave it to the caller,
        who decodes the items, to find out whether each is JSON.
        """
        path = f"cluster/{kind}.json"
        if self.trace is not None:
            self.trace.add(path)
        whole = None if part else self._missing.get((f"api/{kind}", None))
        if whole is not None and path in self._paths:
            return Missing(whole.kind, whole.reason, whole.source or path)
        reading = self._list(kind, path, unread=unread)
        if isinstance(reading, Missing) and reading.kind in {MissingKind.NOT_ASKED, MissingKind.ERROR}:
            discovery = self.discovery()
            recorded = (f"api/{kind}", None) in self._missing
            if isinstance(discovery, Seen) and not recorded and not discovery.value.serves(kind):
                told = discovery.value.complete or kind in self.manifest.asked.api
                return Seen(None) if told else reading
            if isinstance(discovery, Missing) and discovery.kind is not MissingKind.NOT_ASKED and not recorded:
                return discovery  # whether the kind is served cannot be told
        return reading

    def asks_log(self, name: str) -> bool:
        """Tell whether a log was asked for (`<namespace>/<pod>/<container>`)."""
        return name in self._logs

    def asks_logs_of(self, pod: str) -> bool:
        """Tell whether any log of a pod (`<namespace>/<pod>`) was asked for."""
        return pod in self._pods_with_logs

    def has_logs_of(self, namespace: str, pod: str) -> bool:
        """Tell whether any log of a pod was asked for, or is in the bundle."""
        return self.asks_logs_of(f"{namespace}/{pod}") or f"{namespace}_{pod}" in self._pods_with_log_files

    @cached_property
    def _pods_with_log_files(self) -> frozenset[str]:
        """Pods as `<namespace>_<pod>`; no name in Kubernetes has an underscore."""
        logs = (path.removeprefix(_LOGS) for path in self._paths if path.startswith(_LOGS))
        return frozenset("_".join(name.split("_", 2)[:2]) for name in logs)

    @cached_property
    def _paths(self) -> frozenset[str]:
        return frozenset(self.store.paths())

    def _list(self, kind: str, path: str, *, unread: bool) -> Reading[ListRecord]:
        lines = self._lines(path)
        if isinstance(lines, Seen) and not unread:
            reason = whole_reason(lines.value.items)
            if reason is not None:
                return Missing(MissingKind.UNPARSABLE, f"{path}: {reason}", path)
        if lines is not None:
            return lines
        asked = kind in self.manifest.asked.api
        whole: Reading[WholeList] = self._document(path, WholeList, asked=asked, evidence=f"api/{kind}")
        return whole if isinstance(whole, Missing) else Seen(ListRecord(whole.value.items))

    def _lines(self, path: str) -> Reading[ListRecord] | None:
        """Return a list that is written one item a line, None if it is not there or written otherwise."""
        try:
            stream = self.store.open(path)
        except BundleError as error:
            return Missing(MissingKind.UNPARSABLE, str(error), path)
        if stream is None:
            return None
        try:
            items = read_lines(stream)
        except OSError as error:
            stream.close()
            return Missing(MissingKind.UNPARSABLE, f"{path}: {error.strerror or error}; make it readable", path)
        if items is None:
            stream.close()
            return None
        changed = self._changed(path, items.sha256)
        return changed or Seen(ListRecord(items))

    def _changed(self, path: str, sha256: str) -> Missing | None:
        """Say so where a file is not the one that was written."""
        if self.manifest.files.get(path, sha256) == sha256:
            return None
        seen = "not the file that was written (its sha256 differs from bundle.json's): truncated or edited"
        reason = f"{path}: {seen}; if edited on purpose, take its line out of 'files'"
        return Missing(MissingKind.UNPARSABLE, reason, path)

    def log(self, namespace: str, pod: str, container: str, *, previous: bool = False) -> Reading[str]:
        """Return a container's log, or that of its previous run. Text that is not UTF-8 is replaced."""
        path = f"{_LOGS}{namespace}_{pod}_{container}{'.previous' if previous else ''}.log"
        name = f"{namespace}/{pod}/{container}{'/previous' if previous else ''}"
        return self._text(path, asked=name in self._logs, evidence=f"logs/{name}", option=None)

    def node_log(self, node: str, unit: str) -> Reading[str]:
        """Return a service's log on a node (`containerd`, `kubelet`, `kernel`)."""
        asked = f"log:{unit}" in self.manifest.asked.host.get(node, ())
        return self._text(
            f"nodes/{node}/logs/{unit}.log", asked=asked, evidence=f"host/log:{unit}", node=node, option="--probe"
        )

    def asks_of(self, node: str, key: str) -> bool:
        """Tell whether a read was asked for on a node."""
        asked = self._asked.get(node)
        if asked is None:
            asked = self._asked[node] = frozenset(self.manifest.asked.host.get(node, ()))
        return key in asked

    def host_read(self, node: str, key: str) -> Reading[Read]:
        """Return one verbatim read; one that ended in an error is `Missing`, one that found nothing is seen."""
        path = f"nodes/{node}/host.json"
        if self.trace is not None:
            self.trace.add(f"{path}#{key}")
        if not self.asks_of(node, key):
            return Missing(MissingKind.NOT_ASKED, f"'{key}' was not read", f"{path}#{key}", "--probe")
        known = self._missing.get((f"host/{key}", node)) or self._missing.get(("host", node))
        if known is not None:
            return Missing(known.kind, known.reason, known.source or path)
        record = self._host(node)
        if isinstance(record, Missing):
            return record
        read = record.value.reads.get(key)
        if read is None:
            return Missing(MissingKind.ERROR, f"'{key}' was asked for and is not in the bundle", f"{path}#{key}")
        if read.error is not None:
            kind = (
                MissingKind.FORBIDDEN
                if read.error in {"EACCES", "EPERM"}
                else MissingKind.TIMEOUT
                if read.error == "ETIMEDOUT"
                else MissingKind.ERROR
            )
            return Missing(kind, f"'{key}' on {node}: {read.error}", f"{path}#{key}")
        return Seen(read)

    def host_boot_id(self, node: str) -> str | None:
        """Return the boot id that stands with a node's host evidence, or None if none is known."""
        record = self._host(node)
        return None if isinstance(record, Missing) else record.value.boot_id

    def let_go(self, node: str) -> None:
        """Forget a node's host evidence; it is read again when it is looked at."""
        self._hosts.pop(node, None)
        self._asked.pop(node, None)

    def host_keys(self, node: str) -> tuple[str, ...]:
        """Return the reads that were asked for on a node, in order."""
        return self.manifest.asked.host.get(node, ())

    def workload(self, name: str, node: str, form: type[Any]) -> Reading[Any]:
        """Return what an active workload measured on a node, decoded as the given form."""
        asked = f"{name}/{node}" in self.manifest.asked.workload
        return self._document(
            f"workloads/{name}/{node}.json", form, asked=asked, evidence=f"workload/{name}/{node}", option="--active"
        )

    def _host(self, node: str) -> Reading[HostRecord]:
        if node not in self._hosts:
            record: Reading[HostRecord] = self._document(
                f"nodes/{node}/host.json", HostRecord, asked=True, evidence="host", node=node
            )
            if isinstance(record, Seen) and record.value.format != HOST_FORMAT:
                reason = f"nodes/{node}/host.json: format {record.value.format}, this gpucheck reads {HOST_FORMAT}"
                record = Missing(MissingKind.UNPARSABLE, f"{reason}; upgrade gpucheck", f"nodes/{node}/host.json")
            self._hosts[node] = record
        return self._hosts[node]

    def _bytes(self, path: str, *, asked: bool, evidence: str, node: str | None, option: str | None) -> Reading[bytes]:
        try:
            content = self.store.read(path) if asked or path in self._paths else None
        except BundleError as error:
            return Missing(MissingKind.UNPARSABLE, str(error), path)
        if content is not None:
            changed = self._changed(path, hashlib.sha256(content).hexdigest()) if path in self.manifest.files else None
            return changed or Seen(content)
        known = self._missing.get((evidence, node))
        if known is not None:
            return Missing(known.kind, known.reason, known.source or path)
        if asked:
            return Missing(MissingKind.ERROR, f"{path} was asked for and is not in the bundle", path)
        return Missing(MissingKind.NOT_ASKED, f"{evidence} was not asked for", path, option)

    def _text(
        self, path: str, *, asked: bool, evidence: str, node: str | None = None, option: str | None
    ) -> Reading[str]:
        if self.trace is not None:
            self.trace.add(path)
        content = self._bytes(path, asked=asked, evidence=evidence, node=node, option=option)
        if isinstance(content, Missing):
            return content
        return Seen(content.value.decode("utf-8", "replace"))

    def _document(
        self,
        path: str,
        form: type[Any],
        *,
        asked: bool,
        evidence: str,
        node: str | None = None,
        option: str | None = None,
    ) -> Reading[Any]:
        if self.trace is not None and not path.endswith("host.json"):
            self.trace.add(path)
        content = self._bytes(path, asked=asked, evidence=evidence, node=node, option=option)
        if isinstance(content, Missing):
            return content
        try:
            return Seen(msgspec.json.decode(content.value, type=form))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return Missing(MissingKind.UNPARSABLE, f"{path}: {error}", path)


def read_manifest(store: Store) -> Manifest:
    """Read `bundle.json`, and refuse a format that this gpucheck does not know.

    Raises:
        BundleError: there is none, it is not JSON, a field is wrong, or the format is another.
    """
    content = store.read("bundle.json")
    if content is None:
        way_out = "give a bundle's folder or .tar.gz, or use 'gpucheck import' for another tool's archive"
        msg = f"{store.name}: no bundle.json in it; {way_out}"
        raise BundleError(msg)
    try:
        number = msgspec.json.decode(content, type=_FormatOnly).format
        if number != BUNDLE_FORMAT:
            msg = f"{store.name}/bundle.json: format {number}, this gpucheck reads {BUNDLE_FORMAT}; upgrade gpucheck"
            raise BundleError(msg)
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{store.name}/bundle.json: {error}; the format is described in docs/bundle.md"
        raise BundleError(msg) from error
    if manifest.provenance not in _PROVENANCES and not manifest.provenance.startswith("imported:"):
        expected = f"expected {', '.join(sorted(_PROVENANCES))} or imported:<kind>"
        msg = f"{store.name}/bundle.json: provenance is '{manifest.provenance}', {expected}"
        raise BundleError(msg)
    if manifest.run.gathered_at.tzinfo is None or manifest.run.started.tzinfo is None:
        msg = (
            f"{store.name}/bundle.json: run.started and run.gathered_at need a zone; write them as 2026-11-24T00:13:31Z"
        )
        raise BundleError(msg)
    return manifest


_PROVENANCES: Final = frozenset({"live", "recorded", "hand-made", "generated"})


class _FormatOnly(msgspec.Struct):
    format: int


def open_bundle(path: Path) -> Bundle:
    """Open a bundle's folder or `.tar.gz`.

    Raises:
        BundleError: it is not there, is no bundle, is damaged, or has an unknown format.
    """
    store: Store
    if path.is_dir():
        store = FolderStore(path)
    elif path.is_file():
        store = open_archive(path)
    else:
        msg = f"{path}: no such file or folder; give a bundle's folder or .tar.gz"
        raise BundleError(msg)
    return Bundle(store, read_manifest(store))


def memory_bundle(name: str, files: Mapping[str, bytes]) -> Bundle:
    """Return a bundle of files in memory.

    Raises:
        BundleError: its bundle.json is missing or wrong.
    """
    store = MemoryStore(name, files)
    return Bundle(store, read_manifest(store))


def encode_manifest(manifest: Manifest, files: Mapping[str, bytes]) -> bytes:
    """Return `bundle.json` for these files, with their sha256, in a form that people can read."""
    hashes = {
        path: hashlib.sha256(content).hexdigest() for path, content in sorted(files.items()) if path != "bundle.json"
    }
    return msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(manifest, files=hashes)), indent=1) + b"\n"


def write_bundle(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Write a bundle into a folder that is not there yet or is empty. Creates the folder, whole or not at all.

    Raises:
        BundleError: the folder holds something already, or cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            msg = f"{folder}: already there and not empty; name another folder"
            raise BundleError(msg)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            whole = Path(scratch) / "bundle"
            for path, content in [*files.items(), ("bundle.json", encode_manifest(manifest, files))]:
                target = whole / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            if folder.exists():
                folder.rmdir()
            whole.rename(folder)
    except OSError as error:
        msg = f"{folder}: {error.strerror or error}; name a folder that can be written"
        raise BundleError(msg) from error
