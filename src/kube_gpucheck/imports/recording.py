"""Imports a recording: a folder with kubectl's lists in `objects.json`, logs, and text dumps of the host.

docs/bundle.md, "Imported recordings", tells what becomes of each file. What the recorder asked for and
was refused is `missing`, with the refusal's words; what is not understood is kept under `extra/`.
"""

import calendar
import datetime
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from kube_gpucheck.errors import BundleError
from kube_gpucheck.evidence import dumps
from kube_gpucheck.evidence.bundle import (
    BUNDLE_FORMAT,
    HOST_FORMAT,
    Asked,
    DiscoveryRecord,
    Entry,
    GroupRecord,
    HostRecord,
    Manifest,
    Read,
    RunRecord,
)
from kube_gpucheck.evidence.names import NEVER, is_kind, is_name
from kube_gpucheck.evidence.pruning import PRUNED, prune_object
from kube_gpucheck.evidence.redaction import Redactor
from kube_gpucheck.evidence.store import FolderStore
from kube_gpucheck.imports import hostdumps, kinds
from kube_gpucheck.imports.kinds import mapping, sequence
from kube_gpucheck.model import MissingEvidence, MissingKind

KIND: Final = "recording"
"""The importer's name, for `--as`."""

_LISTS: Final = '{"nodes": {"items": […]}, "pods": {"items": […]}, …}'

_MANGLED: Final = 20
"""A dump is no text where more than one character of this many is not UTF-8."""

_SMI_DATE: Final = re.compile(
    r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ([A-Z][a-z]{2}) {1,2}(\d{1,2}) (\d\d):(\d\d):(\d\d) (\d{4})\b"
)


def recognise(folder: Path) -> bool:
    """Tell by content whether a folder is a recording: kubectl's lists, or dumps of a host."""
    if (folder / "objects.json").is_file():
        return True
    places = [place for place in (folder, folder / "host") if place.is_dir()]
    return any(len({path.name for path in place.iterdir()} & hostdumps.PARSERS.keys()) > 1 for place in places)


def import_recording(
    folder: Path,
    *,
    name: str | None = None,
    provenance: str = "recorded",
    modelled_on: str | None = None,
    not_real: tuple[str, ...] = (),
) -> tuple[Manifest, dict[str, bytes]]:
    """Return the bundle of a recording: its manifest, and its files by path.

    `name` is what the run is called, else the folder's name. `not_real` is what the reader must know not to
    be real; nothing in a recording says it.

    Raises:
        BundleError: the folder is not there, is no recording, or its `objects.json` cannot be read.
    """
    if not folder.is_dir():
        msg = f"{folder}: no such folder; give the folder of one recorded state"
        raise BundleError(msg)
    if not recognise(folder):
        msg = (
            f"{folder}: no recording: it has neither objects.json (a list a kind, as 'kubectl get -o json' prints it) "
            "nor dumps of a host (pci-all.txt, proc-modules-nvidia.txt, …); docs/bundle.md describes the layout"
        )
        raise BundleError(msg)
    recording = _Recording(folder, name or folder.resolve().name)
    recording.read()
    return recording.manifest(provenance=provenance, modelled_on=modelled_on, not_real=not_real), recording.files


class _Recording:
    """One recording on its way into a bundle."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._left: dict[str, bytes] = {}
        self._redactor = Redactor()
        self._api: dict[str, None] = {}
        self._logs: list[str] = []
        self._hosts: dict[str, _Host] = {}
        self._missing: list[MissingEvidence] = []
        self._pods: list[tuple[str, str, frozenset[str]]] = []
        self._nodes: dict[str, Mapping[str, Any]] = {}
        self._when = datetime.datetime.fromtimestamp(0, tz=datetime.timezone.utc)
        self.files: dict[str, bytes] = {}

    def read(self) -> None:
        """Read the whole folder."""
        for path, content in _contents(self._folder):
            if isinstance(content, bytes):
                self._left[path] = content
            else:
                self._missing.append(MissingEvidence(f"extra/{path}", MissingKind.ERROR, content, path))
        self._read_objects()
        self._when = self._moment()
        own = self._own_node()
        for node, prefix, paths in self._host_folders(own):
            host = self._hosts.setdefault(node, _Host(node, self._boot_id(node)))
            for path in host.read(prefix, {path: self._left[path] for path in paths}):
                del self._left[path]
        self._read_logs(own)
        for path in sorted(self._left):
            self._write(f"extra/{path}", self._left[path])
        for node, host in sorted(self._hosts.items()):
            self._write(f"nodes/{node}/host.json", host.record(self._when))

    def manifest(self, *, provenance: str, modelled_on: str | None, not_real: tuple[str, ...]) -> Manifest:
        """Return `bundle.json` without its files' hashes."""
        hosts = sorted(self._hosts.items())
        return Manifest(
            format=BUNDLE_FORMAT,
            tool="gpucheck import",
            run=RunRecord(self._name, self._when, self._when, source=f"the recording {self._name}"),
            provenance=provenance,
            asked=Asked(
                api=tuple(self._api),
                logs=tuple(sorted(self._logs)),
                host={node: tuple(host.asked) for node, host in hosts},
            ),
            modelled_on=modelled_on,
            not_real=not_real,
            missing=(*self._missing, *(one for _, host in hosts for one in host.missing())),
            pruned=PRUNED,
            redacted=self._redactor.counts(),
        )

    def _write(self, path: str, content: bytes) -> None:
        self.files[path] = self._redactor.content(path, content)

    # --- the API -------------------------------------------------------------------------------

    def _read_objects(self) -> None:
        content = self._left.pop("objects.json", None)
        if content is None:
            return
        where = self._folder / "objects.json"
        document = _json_object(where, content)
        lists = {key: value for key, value in document.items() if key.partition(".")[0].lower() not in NEVER}
        if not any("items" in mapping(value) or "error" in mapping(value) for value in lists.values()):
            msg = f"{where}: no member of it is a list of Kubernetes objects; a recording has one a kind, {_LISTS}"
            raise BundleError(msg)
        answered: set[str] = set()
        refused: set[str] = set()
        for plural, value in lists.items():
            name = kinds.full_name(plural, value)
            if not is_kind(name):
                reason = f"'{plural}' is no name of a kind"
                self._missing.append(MissingEvidence("api", MissingKind.UNPARSABLE, reason, "objects.json"))
                continue
            self._api[name] = None
            failure = _failure(value)
            if failure is None:
                answered.add(name)
                self._write_list(name, value)
            elif kinds.not_served(failure[1]):
                refused.add(name)
            else:
                self._missing.append(MissingEvidence(f"api/{name}", *failure, f"api/{name}"))
        self._write_discovery(answered, refused)

    def _write_list(self, name: str, value: Mapping[str, Any]) -> None:
        items = [
            prune_object(name, item) if isinstance(item, dict) else item
            for item in value["items"]
            if mapping(item).get("kind") != "Secret"
        ]
        for item in items:
            metadata = mapping(mapping(item).get("metadata"))
            if name == "nodes" and is_name(str(metadata.get("name"))):
                self._nodes[str(metadata.get("name"))] = mapping(item)
            elif name == "pods":
                spec = mapping(mapping(item).get("spec"))
                containers = frozenset(
                    str(mapping(one).get("name"))
                    for field in ("containers", "initContainers", "ephemeralContainers")
                    for one in sequence(spec.get(field))
                )
                self._pods.append((str(metadata.get("namespace") or "default"), str(metadata.get("name")), containers))
        path = f"cluster/{name}.json"
        self.files[path] = _json_bytes({**value, "items": self._redactor.document(path, items)})

    def _write_discovery(self, answered: set[str], refused: set[str]) -> None:
        """Write what the server serves; where the recording does not say, only of the kinds that it asked for."""
        groups = _served_groups(self._left.get("api/api-resources.json"))
        if groups is not None:
            del self._left["api/api-resources.json"]
        served: dict[str, GroupRecord] = {"": GroupRecord("", ("v1",))}
        served.update({group.name: group for group in groups or ()})
        for name in sorted(answered):
            plural, _, group = name.partition(".")
            found = served.get(group, GroupRecord(group, (), None if groups is not None else ()))
            if found.resources is not None:
                found = msgspec.structs.replace(found, resources=tuple(sorted({*found.resources, plural})))
            served[group] = found
        for name in sorted(refused):
            plural, _, group = name.partition(".")
            if group in served and served[group].resources is None:
                known = {*kinds.GROUPS.get(group, ())}
                known |= {one.partition(".")[0] for one in answered if one.partition(".")[2] == group}
                told = {one.partition(".")[0] for one in refused if one.partition(".")[2] == group}
                served[group] = msgspec.structs.replace(served[group], resources=tuple(sorted(known - told)))
        record = DiscoveryRecord(
            _server_version(self._left.get("api/version.json")),
            tuple(group for _, group in sorted(served.items())),
            complete=groups is not None,
        )
        self._api = {"discovery": None, **self._api}
        self.files["cluster/discovery.json"] = _pretty(record)

    # --- logs ----------------------------------------------------------------------------------

    def _read_logs(self, own: str | None) -> None:
        for path in sorted(path for path in self._left if path.startswith("logs/") and path.endswith(".log")):
            name = path.removeprefix("logs/").removesuffix(".log")
            if name.startswith("host-") and "_" not in name:
                self._read_unit_log(path, name.removeprefix("host-"), own)
            else:
                self._read_container_log(path, name)

    def _read_container_log(self, path: str, name: str) -> None:
        place = self._container(name.removesuffix(".previous"))
        if place is None or not all(is_name(part) for part in place):
            return
        previous = name.endswith(".previous")
        asked = "/".join(place) + ("/previous" if previous else "")
        self._logs.append(asked)
        content = self._left.pop(path)
        error = kinds.error_in_place_of_log(content)
        if error is not None:
            evidence = f"logs/{asked}"
            kind, reason = kinds.kind_of_failure(error), kinds.words_of_server(error)
            self._missing.append(MissingEvidence(evidence, kind, reason, evidence))
        else:
            self._write(f"cluster/logs/{'_'.join(place)}{'.previous' if previous else ''}.log", content)

    def _container(self, name: str) -> tuple[str, str, str] | None:
        """Return namespace, pod and container of a log's name, or None if they cannot be told."""
        match name.split("_"):
            case [namespace, pod, container]:
                return namespace, pod, container
            case [pod, container]:
                named = [one for one in self._pods if one[1] == pod]
                having = [one for one in named if container in one[2]] or named
                return (having[0][0], pod, container) if len(having) == 1 else None
            case _:
                return None

    def _read_unit_log(self, path: str, name: str, own: str | None) -> None:
        """Read a service's log: `host-<unit>.log`, or `host-<node>-<unit>.log` where there are several nodes."""
        named = next((node for node in self._nodes if name.startswith(f"{node}-")), None)
        node = named or own
        unit = name.removeprefix(f"{named}-") if named else name
        if node is None or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9@._-]{0,100}", unit) is None:
            return
        host = self._hosts.setdefault(node, _Host(node, self._boot_id(node)))
        content = self._left.pop(path)
        error = kinds.error_in_place_of_journal(content)
        if error is not None:
            host.lose(f"log:{unit}", kinds.kind_of_failure(error), error, path)
        else:
            host.asked[f"log:{unit}"] = None
            self._write(f"nodes/{node}/logs/{unit}.log", content)

    # --- the host ------------------------------------------------------------------------------

    def _own_node(self) -> str | None:
        """Return the node whose host the dumps show: the only one, else the one that uname names.

        Without a list of nodes it is what uname says, else `host`.
        """
        if len(self._nodes) == 1:
            return next(iter(self._nodes))
        words = self._left.get("host/uname.txt", self._left.get("uname.txt", b"")).decode("utf-8", "replace").split()
        own = words[1] if len(words) > 1 and words[0] == "Linux" and is_name(words[1].lower()) else None
        if not self._nodes:
            return own or "host"
        if own is None:
            return None
        for node, item in self._nodes.items():
            labels = mapping(mapping(item.get("metadata")).get("labels"))
            addresses = sequence(mapping(item.get("status")).get("addresses"))
            hostnames = {mapping(one).get("address") for one in addresses if mapping(one).get("type") == "Hostname"}
            if own in {node, labels.get("kubernetes.io/hostname"), *hostnames}:
                return node
        short = [node for node in self._nodes if node.partition(".")[0] == own.partition(".")[0]]
        return short[0] if len(short) == 1 else None

    def _host_folders(self, own: str | None) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Yield each node of which there are dumps, the prefix under which they lie, and their paths.

        `host/` holds those of the own node, or a folder a node; without it dumps at the top are the host's.
        """
        below = [path for path in self._left if path.startswith("host/")]
        for node in self._nodes:
            theirs = tuple(path for path in below if path.startswith(f"host/{node}/"))
            if theirs:
                yield node, f"host/{node}/", theirs
                below = [path for path in below if path not in theirs]
        if not below and not any(path.startswith("host/") for path in self._left):
            below = [path for path in self._left if path in hostdumps.PARSERS]
        if below and own is not None:
            yield own, "host/" if below[0].startswith("host/") else "", tuple(below)
        elif below:
            reason = f"dumps of one host of {len(self._nodes)} nodes, and no uname.txt that names one of them"
            self._missing.append(MissingEvidence("host", MissingKind.ERROR, reason, "host/"))

    def _boot_id(self, node: str) -> str | None:
        found = mapping(mapping(self._nodes.get(node, {}).get("status")).get("nodeInfo")).get("bootID")
        return found if isinstance(found, str) and found else None

    # --- the time ------------------------------------------------------------------------------

    def _moment(self) -> datetime.datetime:
        """Return when it was recorded.

        From `summary.json`, else the date that nvidia-smi printed, else the latest change of a lease or
        event, else the newest file's time.
        """
        said = _when_said(self._left.get("summary.json"))
        if said is not None:
            return said
        for name in ("nvidia-smi-q.txt", "host/nvidia-smi-q.txt", "nvidia-smi.txt", "host/nvidia-smi.txt"):
            found = _nvidia_smi_date(self._left.get(name, b""))
            if found is not None:
                return found
        latest = _latest_change(self.files)
        if latest is not None:
            return latest
        times = [path.lstat().st_mtime for path in self._folder.rglob("*")]
        return datetime.datetime.fromtimestamp(int(max(times, default=0)), tz=datetime.timezone.utc)


class _Host:
    """What the dumps of one host hold, as canonical reads."""

    def __init__(self, node: str, boot_id: str | None) -> None:
        self.asked: dict[str, None] = {}
        self._node = node
        self._boot_id = boot_id
        self._reads: dict[str, Read] = {}
        self._lost: dict[str, MissingEvidence] = {}

    def record(self, when: datetime.datetime) -> bytes:
        """Return `host.json`."""
        read_at = when.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        return _pretty(HostRecord(HOST_FORMAT, self._reads, self._boot_id, read_at))

    def missing(self) -> Iterable[MissingEvidence]:
        """Return what was asked for and is in no dump."""
        return self._lost.values()

    def lose(self, key: str, kind: MissingKind, reason: str, source: str) -> None:
        """Remember a read that was asked for and could not be had; one that is had stays."""
        self.asked[key] = None
        if key not in self._reads:
            self._lost.setdefault(key, MissingEvidence(f"host/{key}", kind, reason, source, self._node))

    def read(self, prefix: str, files: Mapping[str, bytes]) -> set[str]:
        """Read the dumps under a prefix; return those of which every line went into a read."""
        whole: set[str] = set()
        left = {path.removeprefix(prefix): content for path, content in files.items()}
        for name, parse in hostdumps.PARSERS.items():
            if name in left and self._read_dump(f"{prefix}{name}", left[name], name, parse):
                whole.add(name)
        self._join_pci(left.keys(), prefix)
        whole |= self._read_engine(prefix, left)
        whole |= self._read_copies(prefix, left)
        whole |= self._read_checkpoint(prefix, left)
        return {f"{prefix}{name}" for name in whole}

    def _keep(self, key: str, read: Read) -> None:
        self.asked[key] = None
        self._reads.setdefault(key, read)
        self._lost.pop(key, None)

    def _read_dump(self, path: str, content: bytes, name: str, parse: hostdumps.Parser) -> bool:
        text = _text_of(content)
        if text is None or (not text.strip() and name not in hostdumps.MAY_BE_EMPTY):
            reason = f"{path} is {'not text' if text is None else 'empty'}"
            dump = dumps.Dump({}, dict.fromkeys(hostdumps.LOST_WITH.get(name, ()), reason), whole=False)
        else:
            dump = parse(text)
        functions = f"list:{hostdumps.PCI}"
        known = self._reads.get(functions)
        for key, read in dump.reads.items():
            self._keep(key, read)
        if known is not None and functions in dump.reads:
            # Two dumps list them: what one was cut short of, the other may have.
            both = {entry.name: entry for one in (known, dump.reads[functions]) for entry in one.entries or ()}
            self._reads[functions] = Read(entries=tuple(both.values()))
        for key, reason in dump.unread.items():
            self.lose(key, MissingKind.UNPARSABLE, f"{path}: {reason}", path)
        return dump.whole and text is not None

    def _join_pci(self, names: Iterable[str], prefix: str) -> None:
        """Ask for what each PCI function, and each of NVIDIA's, should have in the dumps that are there."""
        held = set(names)
        listed = self._reads.get(f"list:{hostdumps.PCI}")
        functions = [] if listed is None else [entry.name for entry in listed.entries or ()]
        if "pci-all-ids.txt" in held:
            path = f"{prefix}pci-all-ids.txt"
            for name in functions:
                here = f"{hostdumps.PCI}/{name}"
                for key in (*(f"file:{here}/{one}" for one in hostdumps.FUNCTION_FILES), f"link:{here}/driver"):
                    self.lose(key, MissingKind.UNPARSABLE, f"{path} does not tell of {name}", path)
        vendors = {name: self._reads.get(f"file:{hostdumps.PCI}/{name}/vendor") for name in functions}
        gpus = [name for name, vendor in vendors.items() if vendor is not None and vendor.text == "0x10de\n"]
        for dump, keys in hostdumps.GPU_FILES.items():
            if dump in held:
                for key in (key.format(name) for key in keys for name in gpus):
                    self.lose(key, MissingKind.UNPARSABLE, f"{prefix}{dump} does not tell of it", f"{prefix}{dump}")
        if "nvml.json" in held and "nvml:nvmlInit_v2" in self._lost:
            for place in range(len(gpus)):
                self.asked.update((f"nvml:{dumps.nvml_call(name, place)}", None) for name in dumps.NVML_DEVICE)

    def _read_engine(self, prefix: str, left: Mapping[str, bytes]) -> set[str]:
        """Read what `containerd config dump` and `crictl info` printed, and their errors."""
        read: set[str] = set()
        for command, answer, errors in (
            ("containerd config dump", "containerd-config-dump.toml", "containerd-config-dump.err"),
            ("crictl info", "crictl-info.json", "crictl-info.error.txt"),
        ):
            held = [name for name in (answer, errors) if name in left]
            texts = {name: _text_of(left[name]) for name in held}
            text, error = texts.get(answer) or "", texts.get(errors) or ""
            if text.strip():
                self._keep(f"exec:{command}", Read(text=text, code=0))
                read |= {name for name in held if name == answer or not error.strip()}
            elif error.strip():
                self._keep(f"exec:{command}", dumps.command_read(error, status=1))
                read |= {name for name in held if texts[name] is not None}
            elif held:
                reason = f"{' and '.join(f'{prefix}{name}' for name in held)}: empty or not text"
                self.lose(f"exec:{command}", MissingKind.UNPARSABLE, reason, f"{prefix}{held[0]}")
        return read

    def _read_copies(self, prefix: str, left: Mapping[str, bytes]) -> set[str]:
        """Read files that were copied as they were: `etc-containerd/conf.d/x` was `/etc/containerd/conf.d/x`."""
        read: set[str] = set()
        folders: dict[str, dict[str, Entry]] = {}
        for name in sorted(name for name in left if "/" in name):
            top, _, rest = name.partition("/")
            root = self._cdi_folder() if top == "cdi" else hostdumps.place_of(top)
            if root is None:
                continue
            place = posixpath.normpath(f"{root}/{rest}")
            text = _text_of(left[name])
            if text is None:
                self.lose(f"file:{place}", MissingKind.UNPARSABLE, f"{prefix}{name} is not text", f"{prefix}{name}")
            else:
                self._keep(f"file:{place}", Read(text=text))
                read.add(name)
            folder, base = posixpath.split(place)
            entry = Entry(base, size=len(left[name]))
            while top != "cdi" and hostdumps.copied_whole(folder):
                folders.setdefault(folder, {}).setdefault(entry.name, entry)
                if folder == root:
                    break
                folder, base = posixpath.split(folder)
                entry = Entry(base, "dir")
        for folder, entries in folders.items():
            self._keep(f"list:{folder}", Read(entries=tuple(entries.values())))
        if "/etc/containerd" in folders:
            self._keep("list:/etc/containerd/conf.d", Read(absent=True))
        return read

    def _cdi_folder(self) -> str:
        """Return the folder in which specifications were listed; the copies do not say which it was."""
        for folder in ("/etc/cdi", "/var/run/cdi", "/run/cdi"):
            listed = self._reads.get(f"list:{folder}")
            if listed is not None and any(entry.name.endswith((".yaml", ".json")) for entry in listed.entries or ()):
                return folder
        return "/etc/cdi"

    def _read_checkpoint(self, prefix: str, left: Mapping[str, bytes]) -> set[str]:
        """Read the kubelet's device checkpoint; where its folder was listed without it, it is absent."""
        name = "kubelet_internal_checkpoint"
        listings = (key.removeprefix("list:") for key in self._reads if key.startswith("list:"))
        folder = next((path for path in listings if path.endswith("/device-plugins")), None)
        key = f"file:{folder or '/var/lib/kubelet/device-plugins'}/{name}"
        if name in left:
            text = _text_of(left[name])
            if text is not None and text.strip():
                self._keep(key, dumps.text_read(text))
                return {name}
            reason = f"{prefix}{name} is {'not text' if text is None else 'empty'}"
            self.lose(key, MissingKind.UNPARSABLE, reason, f"{prefix}{name}")
        elif folder is not None:
            listed = self._reads[f"list:{folder}"]
            if listed.absent or (listed.entries is not None and all(entry.name != name for entry in listed.entries)):
                self._keep(key, Read(absent=True))
        return set()


def _contents(folder: Path) -> Iterator[tuple[str, bytes | str]]:
    """Yield each file's path and content, or the reason why it was not read: links are not followed."""
    store = FolderStore(folder)
    for path in store.paths():
        if (folder / path).is_symlink():
            yield path, f"a link to '{(folder / path).readlink()}'; what it points to is not the recording's"
            continue
        content = store.read(path)
        if content is not None:
            yield path, content


def _failure(value: Any) -> tuple[MissingKind, str] | None:  # noqa: ANN401  decoded JSON
    """Return why a kind has no whole list, or None if it has one."""
    if not isinstance(value, dict):
        return MissingKind.UNPARSABLE, f"not a list of objects but {kinds.kind_of(value)}"
    if "error" in value:
        reason = " ".join(str(value["error"]).split())
        return kinds.kind_of_failure(reason), kinds.words_of_server(reason)
    if not isinstance(value.get("items"), list):
        return MissingKind.UNPARSABLE, f"'items' is not a list but {kinds.kind_of(value.get('items'))}"
    if mapping(value.get("metadata")).get("continue"):
        return MissingKind.ERROR, "the list is not whole: the server had more items than were fetched"
    return None


def _json_object(path: Path, content: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(content.decode("utf-8-sig"), parse_constant=_no_constant)
    except RecursionError as error:
        msg = f"{path}: nested deeper than any Kubernetes object is; record it again"
        raise BundleError(msg) from error
    except ValueError as error:
        msg = f"{path}: not JSON ({error}); the recording is damaged, get it again"
        raise BundleError(msg) from error
    if not isinstance(document, dict):
        msg = f"{path}: {kinds.kind_of(document)} where an object of lists by kind belongs, {_LISTS}"
        raise BundleError(msg)
    return document


def _no_constant(word: str) -> Any:  # noqa: ANN401  what json asks for
    msg = f"{word} is no JSON"
    raise ValueError(msg)


def _documents(text: str) -> Iterator[Mapping[str, Any]]:
    """Yield each JSON object of a text that holds one or several, one behind the other."""
    decoder = json.JSONDecoder()
    rest = text.lstrip()
    while rest:
        document, end = decoder.raw_decode(rest)
        yield mapping(document)
        rest = rest[end:].lstrip()


def _served_groups(content: bytes | None) -> tuple[GroupRecord, ...] | None:
    """Return the groups that `kubectl get --raw /apis` named, or None if they are not told.

    APIResourceLists (`/apis/<group>/<version>`) behind it tell the resources of their groups.
    """
    versions: dict[str, dict[str, None]] = {}
    resources: dict[str, set[str]] = {}
    listed = False
    try:
        for document in _documents((content or b"").decode("utf-8-sig")):
            for group in sequence(document.get("groups")):
                listed = True
                found = versions.setdefault(str(mapping(group).get("name")), {})
                found.update(
                    (str(mapping(one).get("version")), None) for one in sequence(mapping(group).get("versions"))
                )
            if document.get("kind") == "APIResourceList":
                name = str(document.get("groupVersion", "")).rpartition("/")[0]
                names = {str(mapping(one).get("name")) for one in sequence(document.get("resources"))}
                resources.setdefault(name, set()).update(one for one in names if "/" not in one)
    except (ValueError, RecursionError):
        return None
    if not listed:
        return None
    if "" in resources:
        versions.setdefault("", {"v1": None})
    return tuple(
        GroupRecord(name, tuple(found), tuple(sorted(resources[name])) if name in resources else None)
        for name, found in versions.items()
    )


def _server_version(content: bytes | None) -> str:
    """Return the server's version from `kubectl version -o json` or `/version`, "" if it is not told."""
    try:
        document = mapping(json.loads(content or b"null"))
    except (ValueError, RecursionError):
        return ""
    version = mapping(document.get("serverVersion", document)).get("gitVersion")
    return version if isinstance(version, str) else ""


def _json_bytes(document: Any) -> bytes:  # noqa: ANN401  decoded JSON
    return json.dumps(document, indent=1).encode("ascii") + b"\n"


def _pretty(record: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def _text_of(content: bytes) -> str | None:
    """Return a dump as text, or None if it is none: a dump holds no zero bytes and is nearly all UTF-8."""
    text = content.decode("utf-8", "replace")
    return None if "\0" in text or text.count("\N{REPLACEMENT CHARACTER}") * _MANGLED > len(text) else text


def _time_in(value: Any) -> datetime.datetime | None:  # noqa: ANN401  decoded JSON
    try:
        found = msgspec.convert(value, datetime.datetime)
    except msgspec.ValidationError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=datetime.timezone.utc)


def _when_said(content: bytes | None) -> datetime.datetime | None:
    try:
        document = mapping(json.loads(content or b"null"))
    except (ValueError, RecursionError):
        return None
    return _time_in(document.get("recorded_at"))


def _nvidia_smi_date(content: bytes) -> datetime.datetime | None:
    """Return the date in the head of nvidia-smi's output (`Mon Nov 23 23:44:59 2026`), taken as UTC."""
    found = _SMI_DATE.search(content[:2000].decode("utf-8", "replace"))
    months = list(calendar.month_abbr)
    if found is None or found[1] not in months:
        return None
    day, hour, minute, second, year = (int(part) for part in found.groups()[1:])
    try:
        return datetime.datetime(year, months.index(found[1]), day, hour, minute, second, tzinfo=datetime.timezone.utc)
    except ValueError:
        return None


def _latest_change(files: Mapping[str, bytes]) -> datetime.datetime | None:
    """Return the latest time at which a lease was renewed or an event was seen."""
    leases = _items(files.get("cluster/leases.coordination.k8s.io.json"))
    events = _items(files.get("cluster/events.json"))
    found = [_time_in(mapping(mapping(one).get("spec")).get("renewTime")) for one in leases]
    found += [_time_in(mapping(one).get(field)) for one in events for field in ("lastTimestamp", "eventTime")]
    return max((when for when in found if when is not None), default=None)


def _items(content: bytes | None) -> list[Any]:
    return sequence(mapping(json.loads(content or b"null")).get("items"))
