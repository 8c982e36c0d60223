"""What a person is told while evidence comes: counts, totals only from the server, few lines."""

import io

import pytest

from kube_gpucheck.collect.progress import SILENT, Bar, Lines


def test_a_stream_gets_a_line_for_each_thing_and_one_every_few_seconds() -> None:
    stream = io.StringIO()
    now = [0.0]
    lines = Lines(stream, clock=lambda: now[0])
    lines.begin("pods")
    for second in range(12):
        now[0] = float(second)
        lines.advance(second * 500, 40_000 if second else None)
    lines.end("5,500")
    lines.begin("events")
    lines.advance(3, None)
    lines.end("forbidden: events is forbidden")

    assert stream.getvalue().splitlines() == [
        "pods: 2,500 of 40,000 so far",
        "pods: 5,000 of 40,000 so far",
        "pods: 5,500",
        "events: forbidden: events is forbidden",
    ]


def test_words_of_the_server_do_not_steer_the_terminal() -> None:
    stream = io.StringIO()
    Lines(stream).end("\x1b]0;x\x07\r\n")

    assert stream.getvalue() == ": ?]0;x???\n"


def test_a_silence_is_told_every_few_seconds() -> None:
    stream = io.StringIO()
    now = [0.0]
    lines = Lines(stream, clock=lambda: now[0])
    lines.begin("discovery")
    for second in range(12):
        now[0] = float(second)
        lines.wait()

    assert stream.getvalue().splitlines() == ["discovery: waiting"] * 2


def test_a_count_without_a_total_promises_nothing() -> None:
    stream = io.StringIO()
    now = [0.0]
    lines = Lines(stream, clock=lambda: now[0])
    lines.begin("pods")
    now[0] = 9.0
    lines.advance(500, None)

    assert stream.getvalue() == "pods: 500 so far\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("total", [None, 40_000])
def test_a_bar_says_the_same_and_wipes_itself(total: int | None) -> None:
    stream = Terminal()
    with Bar(stream) as bar:
        bar.begin("pods")
        bar.advance(500, total)
        bar.end("forbidden: [bold]no[/x]")

    assert "pods" in stream.getvalue()
    assert "forbidden: [bold]no[/x]" in stream.getvalue()


def test_silence_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    SILENT.begin("pods")
    SILENT.advance(1, 2)
    SILENT.end("1")

    assert capfd.readouterr() == ("", "")
