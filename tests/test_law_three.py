"""Law 3, replay: what is collected from a bundle that is served is the bundle; so is what is judged of it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from kube_gpucheck.collect.cluster import collect
from kube_gpucheck.collect.connection import open_connection
from kube_gpucheck.collect.waiting import Patience
from kube_gpucheck.evidence import Cluster
from kube_gpucheck.evidence.bundle import Bundle, DiscoveryRecord, open_bundle
from kube_gpucheck.evidence.pruning import PRUNED, prune_object
from kube_gpucheck.model import CheckResult
from kube_gpucheck.simulate.server import EmbeddedCluster
from suite import LIBRARY, judge_all

NAMES = (*LIBRARY.bundles(), *LIBRARY.scenarios())
JUDGED = tuple(name for name in NAMES if name.startswith(("recorded/", "tutorial/")) or name == "complete")
CHUNKS = 48
"""How many tests the fixtures are spread over, so that several processes share them."""
AT_ONCE = Patience(attempts=2, first_s=0.0, most_s=0.0, pause=lambda _: None)


def collected(bundle: Bundle, folder: Path) -> Bundle:
    """Serve a bundle, collect what it asked for, and return what came."""
    folder.mkdir(parents=True)
    with EmbeddedCluster(bundle, name="law-three") as cluster:
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(cluster.kubeconfig(), encoding="utf-8")
        collect(
            open_connection(kubeconfig, environ={}),
            folder / "bundle",
            ask=bundle.manifest.asked,
            run=bundle.manifest.run,
            tool="tests",
            patience=AT_ONCE,
        )
    return open_bundle(folder / "bundle")


def contents(bundle: Bundle) -> dict[str, Any]:
    """Return what stands in each file of a bundle that an API can carry."""
    paths = (path for path in bundle.store.paths() if path != "bundle.json" and not path.startswith("extra/"))
    return {path: read(path, bundle.store.read(path) or b"") for path in paths}


def read(path: str, content: bytes) -> Any:
    if not path.endswith(".json"):
        return content
    if path == "cluster/discovery.json":
        return msgspec.json.decode(content, type=DiscoveryRecord)
    document = msgspec.json.decode(content)
    if not path.startswith("cluster/"):
        return document
    kind = path.removeprefix("cluster/").removesuffix(".json")
    return [prune_object(kind, one) if isinstance(one, dict) else one for one in document["items"]]


def differences(bundle: Bundle, back: Bundle) -> list[str]:
    """Return in what two bundles differ: files, and what their manifests say of what was asked and lost."""
    there, here = contents(bundle), contents(back)
    found = [path for path in sorted({*there, *here}) if there.get(path) != here.get(path)]
    old, new = bundle.manifest, back.manifest
    if old.asked != new.asked:
        found.append("asked")
    found += [f"missing {one}" for one in sorted({*old.missing} ^ {*new.missing}, key=str)]
    if {*new.pruned} != {*PRUNED} or not {*old.pruned} <= {*PRUNED}:
        found.append("pruned")
    if back.gathered_at != bundle.gathered_at.replace(microsecond=0):
        found.append("gathered_at")
    return found


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_what_is_collected_from_a_bundle_is_the_bundle(chunk: int, tmp_path: Path) -> None:
    found = {}
    for name in NAMES[chunk::CHUNKS]:
        bundle = LIBRARY.build(name)
        found[name] = differences(bundle, collected(bundle, tmp_path / name))

    assert {name: what for name, what in found.items() if what} == {}


def judged(bundle: Bundle) -> list[CheckResult]:
    """Return what every check says, without how long it took."""
    return [msgspec.structs.replace(one, duration_s=0.0) for one in judge_all(Cluster(bundle))]


@pytest.mark.parametrize("name", JUDGED)
def test_what_is_judged_of_what_was_collected_is_what_is_judged_of_the_bundle(name: str, tmp_path: Path) -> None:
    bundle = LIBRARY.build(name)
    back = collected(bundle, tmp_path / "back").with_options(bundle.manifest.run.options)

    assert judged(back) == judged(bundle)


def test_a_difference_is_seen(tmp_path: Path) -> None:
    bundle = LIBRARY.build("recorded/healthy")
    other = LIBRARY.build("recorded/containerd-down")

    assert differences(bundle, bundle) == []
    assert len(differences(bundle, collected(other, tmp_path / "other"))) > 5
