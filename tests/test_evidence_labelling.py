"""The vocabulary of labels, and what is read from a node's."""

import pytest

import suite
from kube_gpucheck.evidence import Cluster
from kube_gpucheck.evidence.discovery import expected_labels
from kube_gpucheck.evidence.tables import label_of, labels
from kube_gpucheck.model import Seen

RECORDED = sorted(
    f"recorded/{path.name}" for path in (suite.FIXTURES / "bundles" / "recorded").iterdir() if path.is_dir()
)


@pytest.mark.parametrize(
    "name", [*RECORDED, "tutorial/07-discovery", "healthy/gpu-operator-mig", "healthy/a100-mig-mixed"]
)
def test_every_label_of_the_gpu_stack_is_in_the_table(name: str) -> None:
    cluster = Cluster(suite.LIBRARY.build(name))
    nodes = cluster.nodes.value if isinstance(cluster.nodes, Seen) else ()
    keys = {key for node in nodes if isinstance(node.labels, Seen) for key in node.labels.value}

    ours = [key for key in sorted(keys) if key.startswith(("nvidia.com/", "feature.node.kubernetes.io/"))]
    assert [key for key in ours if label_of(key) is None] == []


@pytest.mark.parametrize(
    ("version", "number", "last"),
    [
        (None, 12, "nvidia.com/gpu.replicas"),
        ((0, 6, 0), 13, "nvidia.com/gpu.memory"),
        ((0, 14, 5), 14, "nvidia.com/gpu.memory"),
        ((0, 15, 0), 23, "nvidia.com/gpu.memory"),
        ((0, 17, 4), 24, "nvidia.com/gpu.memory"),
        ((0, 20, 0), 23, "nvidia.com/gpu.mode"),
    ],
)
def test_a_version_of_gfd_writes_its_own_labels(version: tuple[int, int, int] | None, number: int, last: str) -> None:
    found = expected_labels(version)

    assert (len(found), found[-1]) == (number, last)
    assert len(set(found)) == len(found)


def test_what_replaces_a_deprecated_label_is_in_the_table() -> None:
    replaced = [one.instead for one in labels() if one.instead]

    assert all(label_of(key) is not None for key in replaced)
    assert len(replaced) == 6


@pytest.mark.parametrize(
    "key", ["", "nvidia.com/", "nvidia.com/mig-.count", "nvidia.com/gpu.product.x", "nvidia.com/mig-" + "1" * 300]
)
def test_a_key_that_nobody_writes_is_none(key: str) -> None:
    assert label_of(key) is None


@pytest.mark.parametrize("told", ["", "soon", "-1", "1795479199.5", "9" * 40])
def test_a_time_that_is_none_is_no_time(told: str) -> None:
    bundle = suite.LIBRARY.build("recorded/healthy")
    (node,) = Cluster(bundle).nodes.value  # type: ignore[union-attr]  # the recording has one
    node.labels = Seen({"nvidia.com/gfd.timestamp": told})

    assert node.labelling.labelled_at == Seen(None)
