"""Recording what is printed: streams stay as they are, and nothing that fails there is noticed by print."""

from __future__ import annotations

import io
import sys
import threading

import pytest

from runstream import _slots as slots
from runstream._console import Console

RUN = "0" * 32


class Journal:
    """Stands for a session: keeps records in a list, because only what is recorded when matters here."""

    def __init__(self, broken: bool = False) -> None:
        self.chunks: list[tuple[int, str]] = []
        self.broken = broken

    def journal_record(self, kind: int, run_id: str, text: bytes) -> None:
        """Keep a record, or fail as a disk may."""
        if self.broken:
            raise OSError("broken")
        assert (kind, run_id) == (slots.CONSOLE, RUN)
        stream, _, content = slots.split_console(text)
        self.chunks.append((stream, content))

    def text(self, stream: int) -> str:
        """Return all of a stream."""
        return "".join(content for number, content in self.chunks if number == stream)


class NotebookStream(io.TextIOBase):
    """A stream as ipykernel's: a Python class with a write of its own."""

    def __init__(self) -> None:
        self.shown = ""

    def write(self, text: str) -> int:
        """Show text."""
        self.shown += text
        return len(text)


@pytest.fixture(params=[io.StringIO, NotebookStream], ids=["a file", "a notebook"])
def streams(request, monkeypatch):
    """Put streams of a kind in the place of standard output and error; those of CPython's files are alike."""
    kind = request.param
    if kind is io.StringIO:  # a subclass has attributes, as TextIOWrapper has
        kind = type("File", (io.StringIO,), {})
    out, err = kind(), kind()

    def begin(journal: Journal) -> None:  # in the test's own phase: pytest has other streams for each
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        Console.start(journal, RUN)  # type: ignore[arg-type]

    yield out, err, begin
    Console.stop(RUN)


def shown(stream) -> str:
    return stream.shown if isinstance(stream, NotebookStream) else stream.getvalue()


def test_what_is_printed_is_shown_and_recorded_and_the_streams_are_given_back(streams):
    journal = Journal()
    streams[2](journal)
    assert sys.stdout is streams[0]
    print("one", 2)
    print("no end", end="")
    print("error", file=sys.stderr)
    sys.stdout.writelines(["a\n", "b\n"])
    Console.stop(RUN)
    print("after")
    assert shown(streams[0]) == "one 2\nno enda\nb\nafter\n"
    assert (journal.text(1), journal.text(2)) == ("one 2\nno enda\nb\n", "error\n")
    assert "write" not in vars(streams[0])


def test_a_line_is_recorded_when_print_returns(streams):
    journal = Journal()
    streams[2](journal)
    print("now")
    assert journal.chunks == [(1, "now\n")]


def test_a_journal_that_fails_does_not_break_print(streams):
    streams[2](Journal(broken=True))
    print("shown all the same")
    assert shown(streams[0]) == "shown all the same\n"


def test_threads_print_at_once_and_nothing_is_lost(streams):
    journal = Journal()
    streams[2](journal)

    def work(name: int) -> None:
        for i in range(200):
            sys.stdout.write(f"{name} {i}\n")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Console.stop(RUN)
    assert sorted(journal.text(1).splitlines()) == sorted(f"{n} {i}" for n in range(4) for i in range(200))


def test_a_process_without_a_console_records_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    Console.start(Journal(), RUN)  # type: ignore[arg-type]
    print("nowhere")
    Console.stop(RUN)


def test_a_flood_is_cut_and_says_so(streams, monkeypatch):
    monkeypatch.setattr("runstream._console.LIMIT", 1 << 20)
    journal = Journal()
    streams[2](journal)
    for _ in range(40):
        print("x" * (1 << 16))
    Console.stop(RUN)
    assert len(journal.text(1)) < (2 << 20)
    assert "the rest is not recorded" in journal.text(1)
