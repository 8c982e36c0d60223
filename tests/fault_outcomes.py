"""What a collection makes of each fault of a server, for the table of docs/faults.md.

`write_fault_table.py` writes the table, `test_collect_faults.py` compares it with what happens.
"""

import datetime
import functools
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import trustme

import expectations
from kube_gpucheck.collect.cluster import CONFIGMAPS, KINDS, collect
from kube_gpucheck.collect.connection import Answer, Connection, open_connection
from kube_gpucheck.collect.waiting import PATIENT, Deadline
from kube_gpucheck.diagnose.conclusion import Choice, conclude
from kube_gpucheck.errors import GpucheckError
from kube_gpucheck.evidence import Bundle, Cluster
from kube_gpucheck.evidence.bundle import DiscoveryRecord, Manifest, encode_manifest, memory_bundle, open_bundle
from kube_gpucheck.model import CheckResult, MissingEvidence
from kube_gpucheck.simulate.faults import parse_fault
from kube_gpucheck.simulate.server import EmbeddedCluster, TlsFiles
from suite import LIBRARY, judge_all

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "faults.md"
BEGIN: Final = "<!-- written by tests/write_fault_table.py: begin -->\n"
END: Final = "<!-- end -->\n"
WRONG_CA: Final = "wrong-ca"
_MANY: Final = 1200
_LONGEST_WAIT_S: Final = 0.3
"""How long a test waits for a server that says nothing, where the collector would wait for a minute."""
_SHOWN: Final = 6
_TLS_WORDS: Final = re.compile(r": \[SSL.*?\(_ssl\.c:\d+\)")

CASES: Final[Mapping[str, str]] = {
    "429=2:nodes*2": "twice too many requests, come back in 2 s",
    "429=2:nodes": "too many requests, whenever it is asked",
    "500:pods*2": "two internal errors",
    "500:pods": "an internal error each time",
    "502*3": "a proxy without its server, three times",
    "503=1:daemonsets.apps*2": "twice unavailable, come back in 1 s",
    "503": "unavailable, whatever is asked",
    "504:events": "the server gives up after its own time limit",
    "reset:nodes*2": "the connection is reset before the answer, twice",
    "reset:nodes": "the connection is reset before the answer, each time",
    "reset": "the connection is reset, whatever is asked",
    "reset-in-body:pods*2": "the connection is reset in the middle of the body, twice",
    "reset-in-body:pods": "the connection is reset in the middle of the body, each time",
    "slow=0.5:pods": "the body comes in drops",
    "stall:pods*1": "the body stops in the middle, once",
    "stall:pods": "the body stops in the middle, each time",
    "stall:pods/log": "logs stop in the middle",
    "truncated:nodes*1": "half of the JSON, said to be all, once",
    "truncated:nodes": "half of the JSON, said to be all, each time",
    "html:pods*1": "a login page instead of a list, once",
    "html:pods": "a login page instead of a list, each time",
    "html": "a login page, whatever is asked",
    "403:events": "one kind is forbidden",
    "403:nodes": "nodes are forbidden",
    "403:@nvidia-device-plugin": "everything in one namespace is forbidden",
    "403": "everything is forbidden",
    "401": "the credentials are not known",
    "401+3*1": "the credentials have run out, and are renewed",
    "401+12": "the credentials have run out after 12 requests",
    "410:events*1": "a page has expired in the middle of a list, once",
    "410:events": "pages expire in the middle of a list, each time",
    "huge=20:nodes": "an object of 20 MB",
    "vanish:apps+3": "an API group vanishes after discovery",
    "reset+12": "the server is gone after 12 requests",
    WRONG_CA: "the certificate is another authority's",
}
"""Each fault as it is written, and what it is."""
UNSTEADY: Final = frozenset({"401+12", "reset+12"})
"""Faults that begin in the middle: what came before differs, since requests overlap."""


class Outcome(msgspec.Struct, frozen=True):
    """What came of one fault. `error`: what ended it all. `waited_s`: how long it was waited between tries."""

    exit: int
    verdict: str
    missing: tuple[MissingEvidence, ...] = ()
    error: str = ""
    waited_s: tuple[float, ...] = ()
    results: tuple[CheckResult, ...] = ()


class Hasty:
    """A connection that waits for no byte longer than tests can."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.server = connection.server
        self.context = connection.context

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
        deadline: Deadline | None = None,
    ) -> Answer:
        timeout_s = min(timeout_s, _LONGEST_WAIT_S)
        return self._connection.request(
            method, path, query=query, body=body, headers=headers, timeout_s=timeout_s, deadline=deadline
        )


@functools.cache
def healthy() -> Bundle:
    """Return a cluster without a finding that knows every kind, its events so many that they come in pages."""
    whole = LIBRARY.build("complete")
    files = {path: whole.store.read(path) or b"" for path in whole.store.paths()}
    events = json.loads(files["cluster/events.json"])
    usual = {"type": "Normal", "reason": "Pulled", "message": "done", "involvedObject": {"kind": "Pod", "name": "p"}}
    events["items"] += [
        {"metadata": {"name": f"p.{number}", "namespace": "default"}, **usual, "lastTimestamp": None}
        for number in range(_MANY)
    ]
    files["cluster/events.json"] = json.dumps(events).encode()
    discovery = msgspec.json.decode(files["cluster/discovery.json"], type=DiscoveryRecord)
    kinds = (*KINDS, CONFIGMAPS)
    for kind in filter(discovery.serves, kinds):
        files.setdefault(f"cluster/{kind}.json", b'{"apiVersion": "v1", "kind": "List", "items": []}')
    asked = msgspec.structs.replace(whole.manifest.asked, api=("discovery", *kinds))
    manifest = msgspec.structs.replace(whole.manifest, asked=asked)
    return memory_bundle("complete", {**files, "bundle.json": encode_manifest(manifest, files)})


def outcome_of(fault: str) -> Outcome:
    """Serve the healthy cluster with a fault, collect from it as `gpucheck run` does, and judge what came."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tls = _strange_authority(folder) if fault == WRONG_CA else None
        faults = [] if fault in {WRONG_CA, ""} else [parse_fault(fault)]
        waited: list[float] = []
        with EmbeddedCluster(healthy(), name="faulty", faults=faults, tls=tls) as cluster:
            kubeconfig = folder / "kubeconfig"
            kubeconfig.write_text(cluster.kubeconfig(), encoding="utf-8")
            connection = open_connection(kubeconfig, environ={})
            try:
                manifest = collect(
                    Hasty(connection) if fault.startswith("stall") else connection,
                    folder / "bundle",
                    run=healthy().manifest.run,
                    tool="tests",
                    patience=msgspec.structs.replace(PATIENT, first_s=0.0, most_s=0.0, pause=waited.append),
                )
            except GpucheckError as error:
                said = str(error).replace(cluster.url, "SERVER").replace(str(kubeconfig), "KUBECONFIG")
                return Outcome(3, "error", error=_TLS_WORDS.sub("", said))
        return _judged(folder / "bundle", manifest, tuple(one for one in waited if one))


def _judged(folder: Path, manifest: Manifest, waited_s: tuple[float, ...]) -> Outcome:
    cluster = Cluster(open_bundle(folder))
    results = judge_all(cluster)
    run = conclude(
        results,
        cluster,
        expectations.diagnosis_of(results, cluster),
        Choice(fail_on=expectations.FAIL_ON),
        finished=datetime.datetime.fromtimestamp(0, datetime.timezone.utc),
        tool_version="0",
    )
    return Outcome(run.exit_code, run.verdict.value, manifest.missing, "", waited_s, results)


def _strange_authority(folder: Path) -> TlsFiles:
    """Return files of a server whose certificate another authority has signed than its kubeconfig names."""
    files = TlsFiles(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")
    certificate = trustme.CA().issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(files.key)
    certificate.cert_chain_pems[0].write_to_path(files.certificate)
    trustme.CA().cert_pem.write_to_path(files.authority)
    return files


def row_of(fault: str, outcome: Outcome) -> str:
    """Return a fault's line of the table."""
    return f"| `{fault}` | {CASES[fault]} | {outcome.exit} `{outcome.verdict}` | {_told(fault, outcome)} |\n"


def _told(fault: str, outcome: Outcome) -> str:
    if outcome.error:
        return outcome.error.replace("|", "\\|")
    if not outcome.missing:
        return "nothing is missing"
    kinds: dict[str, dict[str, None]] = {}
    for one in outcome.missing:
        family, _, rest = one.evidence.partition("/")
        kinds.setdefault(one.kind.value, {})[rest if family == "api" else family] = None
    if fault in UNSTEADY:
        return f"the rest is missing ({', '.join(kinds)})"
    return "; ".join(f"missing ({kind}): {_listed(list(lost))}" for kind, lost in kinds.items())


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def table_of(page: str) -> list[str]:
    """Return the lines of the table in a page, its head apart."""
    return page.partition(BEGIN)[2].partition(END)[0].splitlines(keepends=True)[2:]
