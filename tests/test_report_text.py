from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_gpucheck.report.text import LONG, capped, for_json, for_xml, one_line, visible

RIGHT_TO_LEFT_OVERRIDE: Final = chr(0x202E)
LONE_SURROGATE: Final = chr(0xDC80)
NO_CHARACTER: Final = chr(0xFFFE)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;https://example.org\x1b\\a link\x1b]8;;\x1b\\", "a link"),
        ("\x1b]52;c;a clipboard\x9ctext", "text"),
        ("\x1bPa device string\x1b\\text", "text"),
        ("\x1bcreset", "reset"),
        ("\x1b[2J\x1b[Hclear", "clear"),
        ("an end of \x1b", r"an end of \x1b"),
    ],
)
def test_terminal_escapes_are_taken_out(hostile: str, shown: str) -> None:
    assert visible(hostile) == shown


def test_a_string_that_never_ends_takes_no_text_with_it() -> None:
    assert visible("\x1b]0;no end, and then the fault") == "0;no end, and then the fault"


def test_what_cannot_be_seen_is_spelled_out() -> None:
    hostile = f"a\x00b{RIGHT_TO_LEFT_OVERRIDE}c{LONE_SURROGATE}d{NO_CHARACTER}e\x7ff\rg"

    assert visible(hostile) == r"a\x00b\u202ec\udc80d\ufffee\x7ff\rg"


def test_lines_tabs_and_letters_of_every_script_stay() -> None:
    text = "eins\tzwei\n三 – “четыре” ✓ 🙂"

    assert visible(text) == text


def test_the_line_ends_of_windows_are_line_ends() -> None:
    assert visible("one\r\ntwo\r\n") == "one\ntwo\n"


def test_one_line_has_no_line_feed_and_single_spaces() -> None:
    assert one_line(" one\n\ttwo\u00a0 three\r\n") == "one two three"


def test_one_line_of_five_megabytes_is_one_paragraph() -> None:
    line = one_line("x" * 5_000_000)

    assert len(line) <= 4_096
    assert "characters cut" in line


def test_a_text_that_fits_is_not_cut() -> None:
    assert capped("x" * LONG) == "x" * LONG


def test_a_cut_text_keeps_head_and_tail_and_says_how_much_is_gone() -> None:
    cut = capped("HEAD" + "x" * 5_000_000 + "TAIL")

    assert len(cut) == LONG
    assert cut.startswith("HEAD")
    assert cut.endswith("TAIL")
    shown = len(cut.replace(" characters cut … ", "").replace(" … ", "")) - len("4,934,510")
    assert f" … {5_000_008 - shown:,} characters cut … " in cut


@given(st.text(st.characters(), max_size=300), st.integers(min_value=50, max_value=100))
def test_no_text_is_longer_than_its_cap(text: str, limit: int) -> None:
    assert len(capped(text, limit)) <= limit


def test_every_code_point_becomes_what_xml_allows() -> None:
    shown = for_xml("".join(map(chr, range(0x110000))), limit=0x110000 * 10)

    illegal = {
        character
        for character in set(shown)
        if not (
            character in "\t\n"
            or " " <= character <= "\ud7ff"
            or "\ue000" <= character <= "\ufffd"
            or character >= "\U00010000"
        )
    }
    assert illegal == set()


def test_json_keeps_the_text_but_for_lone_surrogates() -> None:
    assert for_json(f"\x1b[31m{LONE_SURROGATE}\x00") == "\x1b[31m" + r"\udc80" + "\x00"
