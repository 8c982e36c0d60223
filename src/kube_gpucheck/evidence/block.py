"""A payload as one block of text that survives a container's log: compressed, checksummed, bounded.

    -----BEGIN GPUCHECK EVIDENCE-----
    {"bytes":1234,"encoding":"zlib+base64","format":1,"sha256":"…"}
    eJzt…
    -----END GPUCHECK EVIDENCE-----

Needs the standard library alone, so that the program on the node can carry this file. What the
payload means is not known here.
"""

import base64
import binascii
import hashlib
import json
import zlib

BLOCK_FORMAT = 1
MAX_PAYLOAD_BYTES = 64 * 2**20
"""The most that a block may unfold into: a node's reads and logs are a few hundred kilobytes."""
BEGIN = "-----BEGIN GPUCHECK EVIDENCE-----"
END = "-----END GPUCHECK EVIDENCE-----"
_LINE = 120


class BlockError(Exception):
    """A text holds no whole block; the words say what is wrong with it."""


def encode_block(payload: bytes) -> str:
    """Return the payload as lines of text, the last with a newline."""
    head = {
        "bytes": len(payload),
        "encoding": "zlib+base64",
        "format": BLOCK_FORMAT,
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    body = base64.b64encode(zlib.compress(payload, 6)).decode("ascii")
    folded = [body[start : start + _LINE] for start in range(0, len(body), _LINE)]
    lines = [BEGIN, json.dumps(head, sort_keys=True, separators=(",", ":")), *folded, END]
    return "\n".join(lines) + "\n"


def decode_block(text: str) -> bytes:
    """Return the payload of the last whole block in a text; lines before and after it are somebody else's.

    Raises:
        BlockError: there is no block, it has no end, is of another format, is damaged or too large.
    """
    _, found, rest = text.rpartition(BEGIN + "\n")
    if not found:
        raise BlockError("no block of evidence in the log")
    inside, found, _ = rest.partition(END)
    if not found:
        raise BlockError("the block of evidence has no end: the log is truncated, or still being written")
    line, _, body = inside.partition("\n")
    try:
        head = json.loads(line)
        number, size, expected = head["format"], head["bytes"], head["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise BlockError(f"the block's first line is no head: {error}") from error
    if number != BLOCK_FORMAT:
        raise BlockError(f"the block has format {number}, this gpucheck reads {BLOCK_FORMAT}; use one version of both")
    if not isinstance(size, int) or not 0 <= size <= MAX_PAYLOAD_BYTES:
        raise BlockError(f"the block announces {size} bytes, at most {MAX_PAYLOAD_BYTES:,} are read")
    try:
        unfolding = zlib.decompressobj()
        payload = unfolding.decompress(base64.b64decode("".join(body.split()), validate=True), size + 1)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise BlockError(f"the block is damaged: {error}") from error
    if len(payload) != size or hashlib.sha256(payload).hexdigest() != expected:
        raise BlockError(f"the block is damaged: {len(payload):,} bytes of {size:,} came, or their sha256 differs")
    return payload
