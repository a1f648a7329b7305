"""The journal: what is written is read back, whatever happens to the writer."""

from __future__ import annotations

import gc
import itertools
import math
import os
import signal
import struct
import threading
import uuid
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runstream import _slots as slots
from runstream._acks import Ack
from runstream._dictionary import DictionaryReader, RunEntry
from runstream._journal import ACK, Journal
from runstream._reader import Cut, JournalReader
from runstream._room import Full
from runstream._segments import segment_path
from runstream._sender_batch import Names, Told, pack

RUN = "0123456789abcdef0123456789abcdef"
INT64 = st.integers(-(2**63), 2**63 - 1)


def new_journal(folder: Path, limit: int = 1 << 30) -> Journal:
    return Journal.create(folder, str(uuid.uuid4()), {"offline": True}, limit)


def first_cut(folder: Path) -> Cut:
    cut = JournalReader(folder).cut(0, 10_000, dead=True)
    assert cut is not None
    return cut


def read_all(folder: Path, *, dead: bool = True):
    """Return points and records of a journal, and where reading stopped."""
    reader, position, points, records, corrupt = JournalReader(folder), 0, [], [], []
    end = reader.end(0) if dead else 1 << 62
    while position < end and (cut := reader.cut(position, 1000, dead=dead)):
        points += cut.points.tolist()
        records += cut.records
        corrupt += cut.corrupt
        position = cut.end
    return points, records, corrupt, position


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(
        st.one_of(
            st.tuples(st.just("point"), INT64, st.integers(0, 2**63 - 1), st.floats()),
            st.tuples(
                st.just("param"), st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=200)
            ),
        ),
        max_size=60,
    )
)
def test_what_is_written_is_read_back_in_order(tmp_path, calls):
    journal = new_journal(tmp_path)
    series = journal.define_series(RUN, "loss")
    expected_points, expected_texts = [], []
    for call in calls:
        if call[0] == "point":
            journal.write_point(-1, series, *call[1:])
            expected_points.append(call[1:])
        else:
            journal.write_record(slots.PARAM, 0, slots.pair_text("key", call[1]))
            expected_texts.append(call[1])
    journal.close()
    points, records, corrupt, _ = read_all(journal.folder)
    assert not corrupt
    packed = [struct.pack("<qqd", *point[:3]) for point in points]
    assert packed == [struct.pack("<qqd", *point) for point in expected_points]
    texts = [slots.split_pair(record.text)[1] for record in records if record.kind == slots.PARAM]
    assert texts == expected_texts
    assert records[-1].kind == slots.CLOSE


def test_a_record_may_lie_across_the_end_of_a_segment(tmp_path):
    journal = new_journal(tmp_path)
    series = journal.define_series(RUN, "loss")
    for step in range(slots.SEGMENT_SLOTS - 5):
        journal.write_point(-1, series, step, 0, 0.0)
    journal.write_record(slots.TAG, 0, slots.pair_text("note", "x" * 3000))
    journal.close()
    points, records, corrupt, _ = read_all(journal.folder)
    assert len(points) == slots.SEGMENT_SLOTS - 5
    assert slots.split_pair(records[1].text) == ("note", "x" * 3000)
    assert not corrupt


def test_a_damaged_slot_is_skipped_and_reported_and_the_rest_is_read(tmp_path):
    journal = new_journal(tmp_path)
    series = journal.define_series(RUN, "loss")
    for step in range(100):
        journal.write_point(-1, series, step, 0, 0.0)
    at = journal.write_record(slots.PARAM, 0, slots.pair_text("lr", "0.001" * 20))
    journal.write_record(slots.PARAM, 0, slots.pair_text("depth", "3"))
    journal.close()
    with open(segment_path(journal.folder, 0), "r+b") as file:
        os.pwrite(file.fileno(), b"\xff" * 32, 50 * 32)  # a point: its marker is gone too
        os.pwrite(file.fileno(), b"\xff", (at + 1) * 32)  # text: the checksum tells
    points, records, corrupt, _ = read_all(journal.folder)
    assert [point[0] for point in points] == [step for step in range(100) if step != 49]
    assert corrupt == [50, at]
    assert [slots.split_pair(record.text)[0] for record in records if record.kind == slots.PARAM] == ["depth"]


def test_one_flipped_bit_of_a_point_is_noticed_and_its_neighbours_are_read(tmp_path):
    journal = new_journal(tmp_path)
    series = journal.define_series(RUN, "loss")
    log = journal.bind(lambda *_: None)
    for step in range(224):  # a bit of each of the 28 checked bytes
        log(RUN, "loss", step / 3, step, 1)
    declared = journal.written() - 224
    journal.close()
    whole = segment_path(journal.folder, 0).read_bytes()
    damaged = bytearray(whole)
    for bit in range(224):
        damaged[(declared + bit) * 32 + bit // 8] ^= 1 << bit % 8
    segment_path(journal.folder, 0).write_bytes(damaged)
    points, _, corrupt, _ = read_all(journal.folder)
    assert points == []
    assert len(corrupt) == 224
    damaged[(declared + 1) * 32 : (declared + 224) * 32] = whole[(declared + 1) * 32 : (declared + 224) * 32]
    segment_path(journal.folder, 0).write_bytes(damaged)
    points, _, corrupt, _ = read_all(journal.folder)
    assert [point[0] for point in points] == list(range(1, 224))
    assert corrupt == [declared]
    assert series == 0


def test_two_turned_bits_make_no_other_kind_of_a_point(tmp_path):
    journal = new_journal(tmp_path)
    journal.define_series(RUN, "loss")
    log = journal.bind(lambda *_: None)
    pairs = list(itertools.combinations(range(32), 2))  # of the bytes that a checksum's start acts on
    for step in range(len(pairs)):
        log(RUN, "loss", step / 3, step, 1)
    first = journal.written() - len(pairs)
    journal.close()
    path = segment_path(journal.folder, 0)
    damaged = bytearray(path.read_bytes())
    for at, bits in enumerate(pairs):
        for bit in bits:
            damaged[(first + at) * 32 + bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    points, _, corrupt, _ = read_all(journal.folder)
    assert points == []
    assert corrupt == list(range(first, first + len(pairs)))


def test_a_point_that_looks_like_a_record_takes_nothing_along(tmp_path):
    journal = new_journal(tmp_path)
    series = journal.define_series(RUN, "loss")
    at = journal.written()
    journal.write_point(-1, series, 0, 1 << 40, struct.unpack("<d", struct.pack("<II", 500, 0))[0])
    journal.write_record(slots.TAG, 0, slots.pair_text("note", "kept"))
    journal.write_point(-1, series, 1, 0, 1.0)
    # The marker of a declaration, with 500 bytes of text; in format 2 it took one turned bit.
    buffer = journal.room.buffers[0]
    marker = slots.marker_of(bytes(buffer[at * 32 : at * 32 + 28]), slots.DECLARE)
    slots.MARKER.pack_into(buffer, at * 32 + slots.MARKER_OFFSET, marker)
    journal.close()
    points, records, corrupt, _ = read_all(journal.folder)
    assert corrupt == [at]
    assert [point[0] for point in points] == [1]
    assert [slots.split_pair(each.text) for each in records if each.kind == slots.TAG] == [("note", "kept")]


@pytest.mark.parametrize("cut_at", [1, 8, 27, 28, 31], ids=lambda at: f"after {at} bytes")
def test_a_torn_slot_of_a_dead_writer_holds_nothing(tmp_path, cut_at):
    journal = new_journal(tmp_path)
    series = journal.define_series(RUN, "loss")
    journal.write_point(-1, series, 1, 2, 3.0)
    end = journal.written()
    body = slots.POINT_BODY.pack(7, 8, 9.0, series)
    torn = (body + slots.MARKER.pack(slots.marker_of(body, slots.POINT)))[:cut_at]
    journal.room.buffers[0][end * 32 : end * 32 + cut_at] = torn
    journal.forget()
    points, _, corrupt, _ = read_all(journal.folder)
    assert [point[:3] for point in points] == [(1, 2, 3.0)]
    assert corrupt == ([] if cut_at <= 28 else [end])


def test_an_unfinished_slot_of_a_live_writer_is_waited_for(tmp_path):
    journal = new_journal(tmp_path)
    series = journal.define_series(RUN, "loss")
    journal.write_point(-1, series, 1, 0, 0.0)
    for late in journal.room.counter:  # noqa: B007  another thread has taken a slot and not written it
        break
    journal.write_point(-1, series, 3, 0, 0.0)
    points, _, _, position = read_all(journal.folder, dead=False)
    assert [point[0] for point in points] == [1]
    assert position == late
    journal.write_point(late, series, 2, 0, 0.0)
    assert [point[0] for point in read_all(journal.folder, dead=False)[0]] == [1, 2, 3]
    journal.close()


def test_a_record_of_a_live_writer_is_waited_for_until_it_is_whole(tmp_path):
    journal = new_journal(tmp_path)
    first, second = slots.encode_record(slots.TAG, 0, slots.pair_text("note", "x" * 20))
    at = journal.written()
    journal.room.buffers[0][at * 32 : at * 32 + 32] = first
    reader = JournalReader(journal.folder)
    assert reader.cut(at, 100, dead=False) is None
    journal.room.buffers[0][at * 32 + 32 : at * 32 + 64] = second
    cut = reader.cut(at, 100, dead=False)
    assert cut is not None
    assert [slots.split_pair(record.text) for record in cut.records] == [("note", "x" * 20)]
    journal.forget()


@pytest.mark.parametrize(
    "text",
    ["[]", "5", "null", '"series"', "[" * 100_000, '{"series": 1}', '{"run": 0}', "{", "\udcff"],
    ids=lambda text: ascii(text[:20]),
)
def test_a_line_that_is_no_entry_is_counted_whatever_it_is(tmp_path, text):
    data = text[:100_000].encode(errors="surrogateescape")
    (tmp_path / "dictionary").write_bytes(b"%08x %s\n" % (zlib.crc32(data), data))
    reader = DictionaryReader(tmp_path)
    assert list(reader.new()) == []
    assert reader.corrupt == 1


@pytest.mark.parametrize(
    "text",
    ['{"sequence": Infinity, "statuses": {}}', "[" * 100_000, "[]", '{"sequence": -5, "statuses": {}}', "\0"],
    ids=lambda text: ascii(text[:20]),
)
def test_a_damaged_acknowledgement_is_the_beginning(tmp_path, text):
    (tmp_path / ACK).write_text(text)
    assert Ack.read(tmp_path) == Ack()


def test_threads_write_at_once_and_nothing_is_lost_or_mixed(tmp_path):
    journal = new_journal(tmp_path)
    log = journal.bind(_no_slow_path(journal))
    keys = [f"thread{number}" for number in range(8)]
    for key in keys:
        journal.define_series(RUN, key)

    def work(key):
        for step in range(20_000):
            log(RUN, key, float(step), step, step)
            if step % 1000 == 0:
                journal.write_record(slots.TAG, 0, slots.pair_text(key, str(step) * 10))

    threads = [threading.Thread(target=work, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    points, records, corrupt, _ = read_all(journal.folder)
    assert not corrupt
    for number in range(8):
        assert [point[0] for point in points if point[3] == number] == list(range(20_000))
    assert sum(record.kind == slots.TAG for record in records) == 8 * 20


def _no_slow_path(journal):
    def slow(_, error, sequence, run_id, key, value, step, timestamp):
        if not isinstance(error, KeyError):
            raise error
        journal.write_point(sequence, journal.series[run_id, key], step, timestamp, value)

    return slow


def test_a_signal_in_the_middle_of_a_call_leaves_no_hole(tmp_path):
    journal = new_journal(tmp_path)
    journal.define_series(RUN, "loss")

    def slow(_, error, sequence, *call):
        if isinstance(error, KeyError):
            journal.write_point(sequence, 0, call[3], call[4], call[2])
            return
        if sequence >= 0:
            journal.give_up(sequence)
        raise error

    log = journal.bind(slow)
    returned, interrupted = 0, 0

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    # Python swallows what a handler raises in a callback of the collector, and Hypothesis has one.
    gc.disable()
    try:
        while interrupted < 200:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0003 + interrupted * 1e-6)
                while True:
                    log(RUN, "loss", 1.0, returned, 0)
                    returned += 1
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    journal.write_point(-1, 0, -1, 0, 0.0)
    points, _, corrupt, position = read_all(journal.folder, dead=False)
    assert position == journal.written()  # no hole: a live reader gets to the end
    assert not corrupt
    assert {point[0] for point in points} >= set(range(returned))
    journal.close()


def test_the_limit_loses_calls_with_one_warning_and_goes_on_when_there_is_room(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("runstream._room.RETRY", 0.01)
    journal = new_journal(tmp_path, limit=2 * slots.SEGMENT_BYTES)
    series = journal.define_series(RUN, "loss")
    kept, lost = [], 0
    for step in range(3 * slots.SEGMENT_SLOTS):
        try:
            journal.write_point(-1, series, step, 0, 0.0)
            kept.append(step)
        except Full:
            journal.count_lost()
            lost += 1
    assert lost == journal.lost > 0
    assert len(caplog.records) == 1
    assert "RUNSTREAM_JOURNAL_LIMIT" in caplog.text
    journal.room.limit = 1 << 30  # somebody frees disk space
    for step in range(10_000_000, 10_000_000 + slots.SEGMENT_SLOTS):
        try:
            journal.write_point(-1, series, step, 0, 0.0)
            kept.append(step)
        except Full:
            journal.count_lost()
    assert kept[-1] == 10_000_000 + slots.SEGMENT_SLOTS - 1
    for dead in (False, True):
        points, _, corrupt, _ = read_all(journal.folder, dead=dead)
        assert [point[0] for point in points] == kept
        assert not corrupt
    assert int((journal.folder / "lost").read_text()) == journal.lost
    journal.close()


def test_a_batch_holds_columns_per_run_and_new_names_once(tmp_path):
    journal = new_journal(tmp_path)
    other = "f" * 32
    journal.declare(RunEntry(0, RUN, create=True, owner=True, experiment_name="exp", tags={"a": "b"}))
    numbers = [
        journal.define_series(RUN, "loss"),
        journal.define_series(other, "loss"),
        journal.define_series(RUN, "acc"),
    ]
    values = [1.5, -0.0, math.nan, math.inf, 5e-324, 2.0]
    for step, value in enumerate(values):
        journal.write_point(-1, numbers[step % 3], step, 1000 + step, value)
    journal.write_record(slots.STATUS, 0, slots.status_text(3, 77))
    journal.close()
    names, told = Names(DictionaryReader(journal.folder)), Told()
    names.refresh()
    cut = first_cut(journal.folder)
    packed = pack("s", cut, names, told)
    batch = packed.batch
    assert {run.run_id: list(run.step) for run in batch.runs} == {RUN: [0, 2, 3, 5], other: [1, 4]}
    assert {(entry.series, entry.run_id, entry.key) for entry in batch.dictionary} == {
        (0, RUN, "loss"),
        (1, other, "loss"),
        (2, RUN, "acc"),
    }
    assert {(item.run_id, item.create, item.experiment_name) for item in batch.declarations} == {
        (RUN, True, "exp"),
        (other, False, ""),
    }
    status = next(event for run in batch.runs for event in run.events)
    assert (status.status.status, status.status.end_time) == (3, 77)
    packed.sent(told)
    again = pack("s", cut, names, told).batch
    assert not again.dictionary


def test_a_point_of_a_series_that_is_not_in_the_dictionary_is_reported(tmp_path):
    journal = new_journal(tmp_path)
    series = journal.define_series(RUN, "loss")
    journal.write_point(-1, series, 1, 0, 1.0)
    journal.write_point(-1, 99, 2, 0, 1.0)
    journal.write_point(-1, 1 << 31, 3, 0, 1.0)
    journal.write_point(-1, series, 4, 0, 1.0)
    journal.close()
    names = Names(DictionaryReader(journal.folder))
    names.refresh()
    packed = pack("s", first_cut(journal.folder), names, Told())
    assert list(packed.batch.runs[0].step) == [1, 4]
    assert packed.corrupt == [(0, "2 points are damaged: no such series, or no such time")]
