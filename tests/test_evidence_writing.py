"""A bundle that is written file by file: hashed as it goes, whole only with its `bundle.json`."""

import datetime
import hashlib
from pathlib import Path

import pytest

from kube_gpucheck.errors import BundleError
from kube_gpucheck.evidence.bundle import Asked, Manifest, RunRecord, open_bundle
from kube_gpucheck.evidence.writing import BundleWriter
from kube_gpucheck.model import Seen

NOW = datetime.datetime(2026, 11, 24, tzinfo=datetime.timezone.utc)
MANIFEST = Manifest(1, "tests", RunRecord("r", NOW, NOW), "live", Asked(api=("pods",)))


def test_what_was_written_is_a_bundle_with_its_hashes(tmp_path: Path) -> None:
    writer = BundleWriter(tmp_path / "b")
    writer.put("nodes/n1/logs/kubelet.log", b"hello")
    file = writer.open_list("cluster/pods.json")
    file.add([b'{"metadata":{"name":"a"}}', b"2"])
    file.add([])
    file.add([b"3"])
    writer.close_list("cluster/pods.json", file)
    manifest = writer.finish(MANIFEST)

    content = (tmp_path / "b/cluster/pods.json").read_bytes()
    head = b'{"apiVersion":"v1","kind":"List","metadata":{},"items":[\n'
    assert content == head + b'{"metadata":{"name":"a"}},\n2,\n3\n]}\n'
    assert manifest.files["cluster/pods.json"] == hashlib.sha256(content).hexdigest()
    assert set(manifest.files) == {"cluster/pods.json", "nodes/n1/logs/kubelet.log"}
    assert open_bundle(tmp_path / "b").manifest == manifest
    assert isinstance(open_bundle(tmp_path / "b").kind("pods"), Seen)


def test_nothing_is_hashed_where_nobody_wants_it(tmp_path: Path) -> None:
    writer = BundleWriter(tmp_path / "b", hashed=False)
    writer.put("a.txt", b"x")
    writer.close_list("l.json", writer.open_list("l.json"))

    assert writer.finish(MANIFEST).files == {}
    assert (tmp_path / "b/l.json").read_bytes().endswith(b'"items":[\n]}\n')


def test_a_list_that_is_discarded_leaves_no_file(tmp_path: Path) -> None:
    writer = BundleWriter(tmp_path / "b")
    file = writer.open_list("cluster/pods.json")
    file.add([b"1"])
    file.discard()

    assert writer.finish(MANIFEST).files == {}
    assert not (tmp_path / "b/cluster/pods.json").exists()


def test_a_bundle_that_is_abandoned_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, is_there in ((tmp_path / "new", False), (tmp_path / "empty", True)):
        writer = BundleWriter(folder)
        writer.put("cluster/a.json", b"{}")
        writer.put("b", b"")
        writer.abandon()
        assert folder.exists() is is_there
        assert not is_there or list(folder.iterdir()) == []


def test_a_folder_that_holds_something_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")

    with pytest.raises(BundleError, match="not empty"):
        BundleWriter(tmp_path)
    with pytest.raises(BundleError, match="not empty"):
        BundleWriter(tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "x"


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a\\b", ""])
def test_nothing_is_written_outside(tmp_path: Path, path: str) -> None:
    writer = BundleWriter(tmp_path / "b")

    with pytest.raises(BundleError, match="leads out"):
        writer.put(path, b"")
    with pytest.raises(BundleError, match="leads out"):
        writer.open_list(path)


def test_a_file_that_cannot_be_written_is_told_by_its_name(tmp_path: Path) -> None:
    writer = BundleWriter(tmp_path / "b")
    writer.put("a", b"")

    with pytest.raises(BundleError, match="name a folder that can be written"):
        writer.put("a/b", b"")
    with pytest.raises(BundleError, match="name a folder that can be written"):
        writer.take("c", tmp_path / "gone")
