"""Makes text from outside safe to show: logs, names and messages are written by others.

Does not redact: that was done when the bundle was written.
"""

import re
import unicodedata
from typing import Final

LONG: Final = 65_536
"""Characters of one text that a report keeps: a log line may have millions, and the bundle has them all."""
LINE: Final = 4_096
"""Characters of a text that has to fit into one paragraph."""

# What a terminal swallows without showing (ECMA-48, "Control functions"): sequences that open with
# CSI, strings that open with OSC, DCS, SOS, PM or APC, and two-character escapes. Each alternative stops
# at the next escape, so the time stays linear in the length of the text.
_ESCAPE_SEQUENCE: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return the text without terminal escapes, and with whatever else cannot be seen spelled out.

    Line feeds and tabs stay. Every other character that `str.isprintable` refuses (controls, marks
    that turn the direction of writing, lone surrogates, code points without a character) becomes its
    Python escape, such as `\u202e`. What is left is legal in XML 1.0 too.
    """
    text = _ESCAPE_SEQUENCE.sub("", text).replace("\r\n", "\n")
    unseen = {ord(one): _spelled_out(one) for one in set(text) if not one.isprintable() and one not in "\n\t"}
    return text.translate(unseen) if unseen else text


def one_line(text: str, limit: int = LINE) -> str:
    """Return the visible text, capped, with every run of white space as one space."""
    return capped(" ".join(visible(capped(text)).split()), limit)


def capped(text: str, limit: int = LONG) -> str:
    """Return a text of at most `limit` characters: head and tail, and between them how much was cut."""
    if len(text) <= limit:
        return text
    kept = max(limit - len(f" … {len(text):,} characters cut … "), 0)
    head = kept * 2 // 3
    return f"{text[:head]} … {len(text) - kept:,} characters cut … {text[len(text) - (kept - head) :]}"


def for_xml(text: str, limit: int = LONG) -> str:
    """Return the text visible and capped; every character of it is legal in XML 1.0."""
    return capped(visible(text), limit)


def for_json(text: str) -> str:
    r"""Return the text as it is, capped, with lone surrogates spelled out (`\udc80`): UTF-8 has no bytes for them."""
    return _SURROGATE.sub(lambda found: _spelled_out(found[0]), capped(text))


def _spelled_out(character: str) -> str:
    if unicodedata.category(character) == "Zs":
        return " "  # a no-break or wide space: only its width differs
    return character.encode("unicode_escape").decode("ascii")
