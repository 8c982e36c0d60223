"""The block in which evidence travels through a pod's log."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_gpucheck.evidence.block import BEGIN, END, BlockError, decode_block, encode_block
from kube_gpucheck.evidence.nodereport import NodeReport, decode_report, encode_report
from kube_gpucheck.model import MissingEvidence, MissingKind


@given(st.binary(max_size=4000), st.text(alphabet="ab \n", max_size=50))
def test_a_block_gives_back_its_payload_whatever_stands_around_it(payload: bytes, around: str) -> None:
    assert decode_block(f"{around}\n{encode_block(payload)}{around}") == payload


def test_of_several_blocks_the_last_counts() -> None:
    assert decode_block(encode_block(b"first") + encode_block(b"second")) == b"second"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no block of evidence"),
        ("nothing here\n", "no block of evidence"),
        (encode_block(b"x" * 999).partition(END)[0], "has no end"),
        (f"{BEGIN}\nno head\n{END}\n", "no head"),
        (f'{BEGIN}\n{{"format":2,"bytes":1,"sha256":""}}\n\n{END}\n', "format 2, this gpucheck reads 1"),
        (f'{BEGIN}\n{{"format":1,"bytes":99999999999,"sha256":""}}\n\n{END}\n', "announces 99999999999 bytes"),
        (f'{BEGIN}\n{{"format":1,"bytes":-1,"sha256":""}}\n\n{END}\n', "announces -1 bytes"),
        (f'{BEGIN}\n{{"format":1,"bytes":1,"sha256":""}}\n%%%\n{END}\n', "damaged"),
        (encode_block(b"x" * 999).replace('"bytes":999', '"bytes":998'), "damaged: 999 bytes of 998"),
        (encode_block(b"x" * 999).replace('"bytes":999', '"bytes":1000'), "damaged: 999 bytes of 1,000"),
    ],
)
def test_a_damaged_block_is_refused_with_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(BlockError) as caught:
        decode_block(text)
    assert words in str(caught.value)


def test_a_report_comes_back_whole() -> None:
    lost = MissingEvidence("host/log:kubelet", MissingKind.FORBIDDEN, "EACCES", "host/log:kubelet", "n1")
    report = NodeReport(
        1, "n1", ("file:/x",), msgspec.Raw(b'{"format":1,"reads":{}}'), {"kernel": "a\n"}, missing=(lost,)
    )
    assert decode_report(encode_report(report)) == report


@pytest.mark.parametrize(
    ("payload", "words"),
    [(b"[]", "no node report"), (b'{"format":7,"node":"n"}', "format 7"), (b"\xff", "no node report")],
)
def test_a_block_that_holds_no_report_of_this_format_is_refused(payload: bytes, words: str) -> None:
    with pytest.raises(BlockError) as caught:
        decode_report(encode_block(payload))
    assert words in str(caught.value)
