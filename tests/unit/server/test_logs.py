"""Log lines: repeated warnings are counted, passwords are nobody's business."""

import logging

from runstream_server.logs import RepeatFilter


def record(message: str, level: int = logging.WARNING, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("runstream.store", level, __file__, 1, message, arguments, None)


def test_a_repeated_warning_is_written_once_then_counted(monkeypatch) -> None:
    repeats, now = RepeatFilter(), [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    assert repeats.filter(record("waiting for %s", logging.WARNING, "a"))
    assert not repeats.filter(record("waiting for %s", logging.WARNING, "b"))
    assert repeats.filter(record("another"))
    now[0] += 11
    again = record("waiting for %s", logging.WARNING, "c")
    assert repeats.filter(again)
    assert again.getMessage() == "waiting for c (1 more like this)"


def test_errors_and_what_was_done_are_never_left_out() -> None:
    repeats = RepeatFilter()
    for level in (logging.ERROR, logging.INFO, logging.DEBUG):
        assert all(repeats.filter(record("same", level)) for _ in range(3))
