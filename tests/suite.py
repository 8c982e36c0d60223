"""The suite's checks as objects, and bundles with one thing taken away: tools for tests of the checks."""

import functools
import importlib.util
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import msgspec

from kube_gpucheck import assets, plugin  # noqa: TID251  tests call checks without pytest around them
from kube_gpucheck.evidence import Bundle, Cluster
from kube_gpucheck.evidence.store import Store
from kube_gpucheck.judging import Check
from kube_gpucheck.model import CheckResult, Reading, Seen, Subject
from kube_gpucheck.simulate.scenario import Library

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
"""The checkout's fixtures: the wheel carries only what scenarios start from."""
LIBRARY = Library(FIXTURES)


@functools.cache
def all_checks() -> tuple[Check, ...]:
    """Return every check of the suite, in order of layer and id."""
    found = (vars(module).values() for module in _modules(assets.folder("conformance")))
    checks = {check.info.id: check for values in found for check in _checks(values)}
    return tuple(sorted(checks.values(), key=lambda check: (check.info.layer.position, check.info.id)))


def _modules(folder: Path) -> Iterator[ModuleType]:
    for path in sorted(folder.rglob("check_*.py")):
        spec = importlib.util.spec_from_file_location(f"suite_{path.parent.name}_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def _checks(values: object) -> Iterator[Check]:
    for value in values:  # type: ignore[attr-defined]  # a module's values
        check = getattr(value, "__gpucheck__", None)
        if isinstance(check, Check):
            yield check


def judge_one(check: Check, bundle: Bundle, subject: Subject | None = None) -> CheckResult:
    """Return what a check says of a bundle, or of one of its subjects, with nothing cached."""
    chosen = check if subject is None else _only(check, frozenset({subject}))
    return plugin.judge(chosen, Cluster(bundle), frozenset())


def judge_subjects(chosen: Iterable[tuple[Check, Subject]], cluster: Cluster) -> tuple[CheckResult, ...]:
    """Return what checks say, each of those subjects alone that are given with it."""
    subjects: dict[str, set[Subject]] = defaultdict(set)
    checks: dict[str, Check] = {}
    for check, subject in chosen:
        checks[check.info.id] = check
        subjects[check.info.id].add(subject)
    return judge_these([_only(check, frozenset(subjects[name])) for name, check in checks.items()], cluster)


def _only(check: Check, subjects: frozenset[Subject]) -> Check:
    def among(view: object) -> Reading[bool]:
        if view.subject not in subjects:  # type: ignore[attr-defined]  # every view has one
            return Seen(value=False)
        return check.among(view) if check.among is not None else Seen(value=True)

    return msgspec.structs.replace(check, among=among)


def judge_all(cluster: Cluster) -> tuple[CheckResult, ...]:
    """Return what `runner.judge` returns, without a run of pytest around it: a tenth of the time."""
    return judge_these(all_checks(), cluster)


def judge_these(checks: Sequence[Check], cluster: Cluster) -> tuple[CheckResult, ...]:
    """Return what these checks say of all their subjects."""
    return plugin.judge_all(checks, cluster, frozenset())


class _Host(msgspec.Struct, frozen=True, omit_defaults=True):
    """A `host.json` whose reads are left as they are."""

    format: int
    reads: Mapping[str, msgspec.Raw]
    boot_id: str | None = None
    read_at: str | None = None
    root: str = "/"
    uid: int | None = None


@functools.lru_cache(maxsize=4)
def _host(content: bytes) -> _Host:
    return msgspec.json.decode(content, type=_Host)


class _Without:
    """A store from which one file, or one read of a host, is gone."""

    def __init__(self, store: Store, gone: str) -> None:
        self.name = store.name
        self._store = store
        self._path, _, self._key = gone.partition("#")

    def read(self, path: str) -> bytes | None:
        content = self._store.read(path)
        if path != self._path or content is None:
            return content
        if not self._key:
            return None
        record = _host(content)
        left = {key: read for key, read in record.reads.items() if key != self._key}
        return msgspec.json.encode(msgspec.structs.replace(record, reads=left))

    def open(self, path: str) -> BinaryIO | None:
        content = self.read(path)
        return None if content is None else io.BytesIO(content)

    def paths(self) -> Iterator[str]:
        return self._store.paths()


def fresh(bundle: Bundle) -> Bundle:
    """Return the same bundle with nothing remembered."""
    return Bundle(bundle.store, msgspec.structs.replace(bundle.manifest, files={}))


def without(bundle: Bundle, gone: str) -> Bundle:
    """Return the bundle with one path (`cluster/pods.json`) or read (`nodes/n/host.json#key`) gone, still asked for."""
    return Bundle(_Without(bundle.store, gone), msgspec.structs.replace(bundle.manifest, files={}))


def is_there(bundle: Bundle, path: str) -> bool:
    """Tell whether a traced path or read exists in the bundle."""
    name, _, key = path.partition("#")
    content = bundle.store.read(name)
    return content is not None and (not key or key in _host(content).reads)
