"""The rights that gathering needs, derived from what was really asked of a server.

`recorded` runs the collector against an embedded cluster that serves every kind it knows; `rules_of`
says it in the words of RBAC. `write_rbac.py` writes the manifests' rules so, `test_access.py` compares.
"""

import datetime
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from kube_gpucheck.collect.cluster import CONFIGMAPS, KINDS, collect
from kube_gpucheck.collect.connection import open_connection
from kube_gpucheck.evidence.bundle import Bundle, Manifest, RunRecord, encode_manifest, memory_bundle
from kube_gpucheck.simulate.faults import Fault, FaultKind
from kube_gpucheck.simulate.routes import Asking
from kube_gpucheck.simulate.server import EmbeddedCluster
from suite import LIBRARY

FOLDER = Path(__file__).resolve().parent.parent / "workloads" / "rbac"
TENANT = "team"
"""The namespace whose rights a tenant has."""

Rule = dict[str, list[str]]


def everything_served() -> Bundle:
    """Return a cluster that serves every kind that is read by default, with a tenant's GPU pod in it."""
    healthy = LIBRARY.build("complete")
    files = {path: healthy.store.read(path) or b"" for path in healthy.store.paths()}
    discovery = json.loads(files["cluster/discovery.json"])
    groups: dict[str, list[str]] = defaultdict(list)
    for kind in (*KINDS, CONFIGMAPS):
        plural, _, group = kind.partition(".")
        groups[group].append(plural)
    known = {group["name"] for group in discovery["groups"] if set(groups[group["name"]]) <= set(group["resources"])}
    added = [{"name": name, "versions": ["v1"], "resources": groups[name]} for name in groups if name not in known]
    kept = [group for group in discovery["groups"] if group["name"] in known or group["name"] not in groups]
    files["cluster/discovery.json"] = json.dumps({**discovery, "groups": [*kept, *added]}).encode()
    pods = json.loads(files["cluster/pods.json"])
    own: dict[str, Any] = {
        "metadata": {"name": "train", "namespace": TENANT, "uid": "train"},
        "spec": {"containers": [{"name": "main", "image": "cuda"}], "runtimeClassName": "nvidia"},
        "status": {
            "phase": "Running",
            "containerStatuses": [{"name": "main", "image": "cuda", "imageID": "", "ready": True, "restartCount": 3}],
        },
    }
    files["cluster/pods.json"] = json.dumps({**pods, "items": [*pods["items"], own]}).encode()
    for kind in (*KINDS, CONFIGMAPS):
        files.setdefault(f"cluster/{kind}.json", json.dumps({"apiVersion": "v1", "kind": "List", "items": []}).encode())
    asked = msgspec.structs.replace(healthy.manifest.asked, api=("discovery", *KINDS, CONFIGMAPS))
    manifest = msgspec.structs.replace(healthy.manifest, asked=asked)
    return memory_bundle("complete", {**files, "bundle.json": encode_manifest(manifest, files)})


def recorded(
    bundle: Bundle,
    folder: Path,
    *,
    pod: tuple[str, str] | None = None,
    faults: Sequence[Fault] = (),
) -> tuple[tuple[Asking, ...], Manifest]:
    """Return what the collector asked of a cluster for a run that says nothing else, and what it wrote."""
    now = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
    run = RunRecord(id="recorded", started=now, gathered_at=now, source="recorded")
    with EmbeddedCluster(bundle, name="recorded", faults=faults) as cluster:
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(cluster.kubeconfig(), encoding="utf-8")
        manifest = collect(open_connection(kubeconfig), folder / "bundle", run=run, tool="gpucheck", pod=pod)
        return cluster.requests, manifest


def nothing_but(namespace: str, more: str = "") -> tuple[Fault, ...]:
    """Return what a server refuses to someone with rights in one namespace; `more`: the end of a pattern, besides."""
    return (Fault(FaultKind.FORBIDDEN, rf"/(?:api|apis/[^/?]+)/v[^/?]+/(?!namespaces/{namespace}/{more})"),)


def rules_of(requests: Iterable[Asking]) -> list[Rule]:
    """Return the rules that allow these requests for resources, and no others: one for each group and verbs."""
    verbs: dict[tuple[str, str], set[str]] = defaultdict(set)
    for asking in requests:
        if asking.verb:
            verbs[asking.group, asking.resource].add(asking.verb)
    together: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (group, resource), needed in verbs.items():
        together[group, tuple(sorted(needed))].append(resource)
    return [
        {"apiGroups": [group], "resources": sorted(resources), "verbs": list(needed)}
        for (group, needed), resources in sorted(together.items())
    ]


def derived(folder: Path) -> Mapping[str, list[Rule]]:
    """Return the rules of each manifest's role, by the manifest's name, from runs of now. Writes below the folder."""
    bundle = everything_served()
    for name in ("cluster", "pod"):
        (folder / name).mkdir()
    whole, _ = recorded(bundle, folder / "cluster")
    of_one, _ = recorded(bundle, folder / "pod", pod=(TENANT, "train"), faults=nothing_but(TENANT))
    return {
        "troubleshoot": rules_of(whole),
        "pod": rules_of(asking for asking in of_one if asking.namespace == TENANT),
    }


def documents(name: str) -> list[dict[str, Any]]:
    """Return the objects of a manifest."""
    return list(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def written(name: str) -> list[Rule]:
    """Return the rules of a manifest's role."""
    roles = [one for one in documents(name) if one["kind"] in {"ClusterRole", "Role"}]
    assert len(roles) == 1
    return list(roles[0]["rules"])
