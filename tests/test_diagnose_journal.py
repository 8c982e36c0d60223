"""What logs say to the catalogue's expressions, read once and searched no more than needed."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import expectations
from kube_gpucheck.diagnose.catalogue import Catalogue, Cause, LogSign, Sign
from kube_gpucheck.diagnose.journal import Expression, Heard, Journal, words_of
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

LATE = Missing(MissingKind.TIMEOUT, "no answer within 10 s", "cluster/logs")


def catalogue(*signs: LogSign) -> Catalogue:
    cause = Cause(
        id="a-cause",
        title="",
        layer="driver",
        claims=(),
        remedy={"default": ("mend it",)},
        proves="",
        needs=tuple(Sign(log=sign) for sign in signs),
    )
    return Catalogue([cause])


EXPRESSIONS = sorted(
    {
        leaf.log.re
        for cause in expectations.catalogue().causes
        for sign in (*cause.needs, *cause.against, *cause.hints)
        for leaf in sign.leaves
        if leaf.log is not None
    }
)


@given(data=st.data())
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_words_never_hide_what_an_expression_of_the_catalogue_matches(expression: str, data: st.DataObject) -> None:
    text = data.draw(st.from_regex(re.compile(expression, re.IGNORECASE | re.MULTILINE)))
    assert Expression.of(expression).is_in(text, text.lower())


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("GPU is Lost", ("gpu is lost",)),
        (r"Xid=1(?:19|20)\b", ("xid=1",)),
        (r"could not load|ERROR_LIBRARY", ("could not load", "error_library")),
        (r"(?:no|such) device", (" device",)),
        (r"a(?:long word)?b", ("a",)),
        (r"(?:long word)+", ("long word",)),
        (r"x|\d+", ()),
        (r"\d+", ()),
    ],
)
def test_words_are_what_must_stand_in_a_match(expression: str, words: tuple[str, ...]) -> None:
    assert words_of(expression) == words


def test_a_letter_that_is_another_in_lower_case_is_found_all_the_same() -> None:
    text = "gpu i\N{LATIN SMALL LETTER LONG S} lost"
    assert Expression.of("GPU is lost").is_in(text, text.lower())


def test_a_log_is_read_once_for_all_that_ask() -> None:
    journal = Journal(catalogue(LogSign("gfd", "lost"), LogSign("gfd", "found")))
    read: list[str] = []

    def log() -> Reading[str]:
        read.append("read")
        return Seen("nothing is lost")

    answers = [journal.matched(("gfd", "a", "pod"), log) for _ in range(2)]
    assert (answers, read) == ([Seen(frozenset({"lost"}))] * 2, ["read"])


def test_a_component_is_searched_for_its_own_expressions_alone() -> None:
    journal = Journal(catalogue(LogSign("gfd", "lost"), LogSign("kernel", "off the bus")))
    assert journal.matched(("kernel", "a-node"), lambda: Seen("lost: fell off the bus")) == Seen(
        frozenset({"off the bus"})
    )


def test_one_log_that_says_it_is_enough_and_one_that_is_missing_leaves_the_rest_unknown() -> None:
    heard = Heard([LATE, Seen(frozenset({"lost"})), Seen(frozenset[str]())])
    assert heard.says(LogSign("gfd", "lost")) == Seen(value=True)
    assert heard.says(LogSign("gfd", "found")) == LATE
    assert Heard([Seen(frozenset[str]())]).says(LogSign("gfd", "lost")) == Seen(value=False)
