"""The fixed list of what is taken out of objects: the same from raw and from decoded ones, and twice is once."""

from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from kube_gpucheck.evidence.items import OtherItem, encode_item
from kube_gpucheck.evidence.pruning import MAX_NODE_IMAGES, prune, prune_object

LAST = "kubectl.kubernetes.io/last-applied-configuration"


def raw_pruned(kind: str, item: dict[str, Any]) -> Any:
    parts = OtherItem(msgspec.Raw(msgspec.json.encode(item)))
    prune(kind, parts)
    return msgspec.json.decode(encode_item(parts))


def images(count: int, name: str) -> list[dict[str, Any]]:
    return [{"names": [f"registry/{name}:{number}"], "sizeBytes": number} for number in range(count)]


ITEMS = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries(
            {"name": st.text()},
            optional={
                "managedFields": st.just([{"manager": "kubelet"}]),
                "annotations": st.dictionaries(st.sampled_from(["a", LAST]), st.text()),
            },
        )
    },
    optional={
        "spec": st.just({"x": [1, None]}),
        "status": st.builds(
            lambda stack, other: {"images": images(stack, "nvidia") + images(other, "nginx"), "z": 1},
            st.integers(0, 60),
            st.integers(0, 60),
        ),
    },
)


@given(kind=st.sampled_from(["nodes", "pods"]), item=ITEMS)
def test_raw_and_decoded_objects_lose_the_same_and_only_once(kind: str, item: dict[str, Any]) -> None:
    once = prune_object(kind, item)

    assert raw_pruned(kind, item) == once
    assert prune_object(kind, once) == once
    assert "managedFields" not in once["metadata"]
    assert LAST not in once["metadata"].get("annotations", {})


def test_a_node_with_many_images_keeps_the_stacks() -> None:
    node = {"metadata": {"name": "n"}, "status": {"images": images(MAX_NODE_IMAGES, "nginx") + images(2, "nvidia")}}

    assert prune_object("nodes", node)["status"]["images"] == images(2, "nvidia")


def test_a_node_keeps_a_sign_that_it_lists_images() -> None:
    node = {"metadata": {"name": "n"}, "status": {"images": images(MAX_NODE_IMAGES + 1, "nginx")}}

    assert prune_object("nodes", node)["status"]["images"] == images(1, "nginx")


@pytest.mark.parametrize(
    "odd",
    [{"metadata": {"annotations": [LAST]}}, {"metadata": {}, "status": {"images": 5}}, {"metadata": {}, "status": 5}],
)
def test_a_malformed_object_is_left_to_its_reader(odd: dict[str, Any]) -> None:
    assert raw_pruned("nodes", odd) == odd
    assert prune_object("nodes", odd) == odd
