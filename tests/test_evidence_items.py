"""Objects in raw parts: written again as they were, and never another object for it."""

from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from kube_gpucheck.evidence.items import UNREADABLE, CommonItem, OtherItem, encode_item

TEXTS = st.text(max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.dictionaries(TEXTS, VALUES, max_size=4)
OBJECTS = st.fixed_dictionaries(
    {"metadata": MEMBERS},
    optional={"kind": TEXTS, "apiVersion": TEXTS, "spec": VALUES, "status": VALUES},
)


@given(OBJECTS)
def test_a_common_object_is_written_as_it_was(item: dict[str, Any]) -> None:
    content = msgspec.json.encode(item)

    assert msgspec.json.decode(encode_item(msgspec.json.decode(content, type=CommonItem))) == item
    assert msgspec.json.decode(encode_item(OtherItem(msgspec.Raw(content)))) == item


@given(OBJECTS, MEMBERS)
def test_an_object_of_another_form_is_too(item: dict[str, Any], more: dict[str, Any]) -> None:
    whole = {**more, **item}

    assert msgspec.json.decode(encode_item(OtherItem(msgspec.Raw(msgspec.json.encode(whole))))) == whole


@pytest.mark.parametrize("part", ["metadata", "spec", "status"])
@pytest.mark.parametrize("form", ["common", "other"])
def test_a_part_that_was_replaced_is_written(form: str, part: str) -> None:
    content = b'{"metadata":{"name":"n"},"spec":1,"status":2}'
    item = msgspec.json.decode(content, type=CommonItem) if form == "common" else OtherItem(msgspec.Raw(content))
    setattr(item, part, {} if part == "metadata" else msgspec.Raw(b'"new"'))

    assert msgspec.json.decode(encode_item(item))[part] == ({} if part == "metadata" else "new")


@pytest.mark.parametrize(
    "content", [b"", b"5", b"[]", b"null", b'"x"', b'{"metadata":5}', b'{"metadata":', b"{" * 100_000]
)
def test_what_is_no_object_is_none(content: bytes) -> None:
    with pytest.raises(UNREADABLE):
        OtherItem(msgspec.Raw(content))
