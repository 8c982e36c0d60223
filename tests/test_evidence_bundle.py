"""A bundle tells what was seen, what was not there, what could not be had, and what was never asked for."""

import gc
import io
import json
import tarfile
import tempfile
from pathlib import Path

import pytest

import bundle_builders
from kube_gpucheck.errors import BundleError
from kube_gpucheck.evidence import Cluster, open_bundle
from kube_gpucheck.evidence.bundle import Manifest, memory_bundle, read_manifest, write_bundle
from kube_gpucheck.evidence.store import MemoryStore
from kube_gpucheck.model import Missing, MissingKind, Seen


def archive(path: Path, members: dict[str, bytes], *, link: str = "") -> Path:
    """Write a .tar.gz."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link)
            info.type = tarfile.SYMTYPE
            info.linkname = "/etc/passwd"
            tar.addfile(info)
    return path


def kind_of(reading: object) -> MissingKind | None:
    return reading.kind if isinstance(reading, Missing) else None


def test_an_archive_and_a_folder_hold_the_same_evidence(tmp_path: Path) -> None:
    files = bundle_builders.files()
    folder = bundle_builders.write(tmp_path / "folder", files)
    packed = archive(tmp_path / "b.tar.gz", {f"top/{name}": content for name, content in files.items()})
    one, other = (Cluster(open_bundle(path)).objects("pods") for path in (folder, packed))
    assert one == other


def test_an_archive_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    bundle = open_bundle(archive(tmp_path / "b.tar.gz", bundle_builders.files()))
    assert isinstance(bundle.kind("pods"), Seen)
    assert len(list(scratch.iterdir())) == 1
    del bundle
    gc.collect()
    with pytest.raises(BundleError):
        open_bundle(archive(tmp_path / "c.tar.gz", bundle_builders.files(), link="nodes/x"))
    assert list(scratch.iterdir()) == []


def test_only_asked_tells_unknown_from_not_asked() -> None:
    files = bundle_builders.files()
    del files["cluster/events.json"]
    bundle = memory_bundle("b", files)
    assert kind_of(bundle.kind("events")) is MissingKind.ERROR
    assert kind_of(bundle.kind("services")) is MissingKind.NOT_ASKED


def test_a_kind_that_the_api_does_not_serve_was_seen_to_be_absent() -> None:
    files = bundle_builders.files(asked={"api": ["discovery", "clusterpolicies.nvidia.com"]})
    files["cluster/discovery.json"] = json.dumps(
        {"version": "v1", "groups": [{"name": "apps", "versions": ["v1"]}]}
    ).encode()
    assert memory_bundle("b", files).kind("clusterpolicies.nvidia.com") == Seen(None)


def test_a_recorded_failure_keeps_its_kind_and_words() -> None:
    lost = [{"evidence": "api/events", "kind": "forbidden", "reason": "events is forbidden", "source": "api"}]
    files = bundle_builders.files(missing=lost)
    del files["cluster/events.json"]
    assert memory_bundle("b", files).kind("events") == Missing(MissingKind.FORBIDDEN, "events is forbidden", "api")


def test_one_malformed_item_loses_no_other() -> None:
    files = bundle_builders.files()
    broken = bundle_builders.pod("broken")
    del broken["status"]["phase"]
    files["cluster/pods.json"] = bundle_builders.listed(bundle_builders.pod("whole"), broken)
    items = Cluster(memory_bundle("b", files)).items("pods")
    assert isinstance(items, Seen)
    assert items.value is not None
    assert [one.name for one in items.value.good] == ["whole"]
    assert [(one.name, "phase" in one.reason) for one in items.value.bad] == [("broken", True)]


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"items": {}}', b'{"items": [1', b"\xff\xfe", b"[" * 100_000, b'{"kind": "List"}']
)
def test_a_list_of_the_wrong_shape_is_unparsable_and_never_empty(content: bytes) -> None:
    files = {**bundle_builders.files(), "cluster/pods.json": content}
    assert kind_of(Cluster(memory_bundle("b", files)).objects("pods")) is MissingKind.UNPARSABLE


def test_a_file_that_changed_since_it_was_written_is_not_believed(tmp_path: Path) -> None:
    files = bundle_builders.files()
    manifest = read_manifest(MemoryStore("b", files))
    write_bundle(tmp_path / "b", manifest, {name: content for name, content in files.items() if name != "bundle.json"})
    target = tmp_path / "b" / "cluster" / "pods.json"
    target.write_bytes(target.read_bytes()[:-10])
    assert kind_of(open_bundle(tmp_path / "b").kind("pods")) is MissingKind.UNPARSABLE


def test_what_is_written_reads_back_equal(tmp_path: Path) -> None:
    files = bundle_builders.files()
    manifest = read_manifest(MemoryStore("b", files))
    write_bundle(tmp_path / "b", manifest, {name: content for name, content in files.items() if name != "bundle.json"})
    again = open_bundle(tmp_path / "b").manifest
    assert set(again.files) == set(files) - {"bundle.json"}
    assert Manifest(**{**{field: getattr(again, field) for field in again.__struct_fields__}, "files": {}}) == manifest


def test_a_folder_that_holds_something_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(BundleError, match="already there and not empty"):
        write_bundle(tmp_path, read_manifest(MemoryStore("b", bundle_builders.files())), {})


@pytest.mark.parametrize(
    ("name", "expected"),
    [("../climb", "leads out"), ("/etc/passwd", "leads out"), ("a/../../b", "leads out"), ("c\\..\\d", "leads out")],
)
def test_an_archive_that_climbs_out_is_refused(tmp_path: Path, name: str, expected: str) -> None:
    with pytest.raises(BundleError, match=expected):
        open_bundle(archive(tmp_path / "b.tar.gz", {name: b""}))


def test_an_archive_with_a_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="a link or device"):
        open_bundle(archive(tmp_path / "b.tar.gz", bundle_builders.files(), link="nodes/x"))


def test_a_link_in_a_folder_is_not_followed(tmp_path: Path) -> None:
    folder = bundle_builders.write(tmp_path / "b", bundle_builders.files())
    (folder / "cluster" / "pods.json").unlink()
    (folder / "cluster" / "pods.json").symlink_to("/etc/hostname")
    reading = open_bundle(folder).kind("pods")
    assert isinstance(reading, Missing)
    assert "a link" in reading.reason


def test_a_gigabyte_of_zeros_is_refused_and_not_read(tmp_path: Path) -> None:
    folder = bundle_builders.write(tmp_path / "b", bundle_builders.files())
    with (folder / "cluster" / "pods.json").open("wb") as sparse:
        sparse.truncate(2**30)
    reading = open_bundle(folder).kind("pods")
    assert isinstance(reading, Missing)
    assert "1,073,741,824 bytes" in reading.reason


def test_an_archive_that_unfolds_into_a_gigabyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        info = tarfile.TarInfo("cluster/pods.json")
        info.size = 2**30
        with Path("/dev/zero").open("rb") as zeros:
            tar.addfile(info, zeros)
    with pytest.raises(BundleError, match="1,073,741,824 bytes"):
        open_bundle(path)


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_truncated_archive_is_refused(tmp_path: Path, keep: int) -> None:
    path = archive(tmp_path / "b.tar.gz", bundle_builders.files())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BundleError, match=r"not a whole \.tar\.gz"):
        open_bundle(path)


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (b"", "bundle.json"),
        (b"[]", "bundle.json"),
        (b'{"format": 2}', "format 2, this gpucheck reads 1; upgrade gpucheck"),
        (b'{"format": 1}', "missing required field"),
        (b'{"format": "1"}', r"\$\.format"),
    ],
)
def test_a_manifest_that_is_none_is_refused_by_name(manifest: bytes, expected: str) -> None:
    with pytest.raises(BundleError, match=expected):
        memory_bundle("b", {"bundle.json": manifest})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"provenance": "hand_made"}, "provenance is 'hand_made'"),
        ({"run": {"id": "x", "started": "2026-01-01T00:00:00Z", "gathered_at": "2026-01-01T00:00:00"}}, "need a zone"),
    ],
)
def test_a_manifest_that_would_mislead_is_refused(change: dict[str, object], expected: str) -> None:
    with pytest.raises(BundleError, match=expected):
        memory_bundle("b", bundle_builders.files(**change))


def test_host_evidence_of_another_format_is_not_believed() -> None:
    files = bundle_builders.files(asked={"host": {"n": ["file:/x"]}})
    files["nodes/n/host.json"] = b'{"format": 2, "reads": {"file:/x": {"text": "y"}}}'
    assert kind_of(memory_bundle("b", files).host_read("n", "file:/x")) is MissingKind.UNPARSABLE


def test_a_node_that_pods_name_and_no_list_has_is_unknown() -> None:
    files = bundle_builders.files(asked={"api": ["nodes", "pods"], "host": {"gpu-0": []}})
    files["cluster/nodes.json"] = bundle_builders.listed()
    (view,) = Cluster(memory_bundle("b", files)).nodes.value  # type: ignore[union-attr]  # it is seen
    assert kind_of(view.object) is MissingKind.ERROR


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle\.json"):
        open_bundle(tmp_path)
