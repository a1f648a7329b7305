"""Named cases go red when the mechanism they are about is off: the journal's marker, the watch's lease.

Each is run as it stands, then with one function replaced. The watermark has its own, beside its stories:
`test_counts_notice_servers_without_watermark_check`, `test_counts_notice_a_server_without_watermark_check`.
"""

import secrets

import grpc
import pytest

from runstream._reader import JournalReader
from runstream_server.ingest import watch
from tests.contract.test_liveness import LOST_AFTER, release_leases, silence, started
from tests.doors import GrpcDoor
from tests.in_process import running_server
from tests.streams import Session
from tests.unit.client import test_journal

pytestmark = pytest.mark.faults
LATE_POINT = test_journal.test_an_unfinished_slot_of_a_live_writer_is_waited_for
LATE_RECORD = test_journal.test_a_record_of_a_live_writer_is_waited_for_until_it_is_whole


def without_markers(self, first, limit, *, dead):
    """Take every slot that has a place, whether it was written or not."""
    array = self._from(first)
    return None if array is None else self._range(first, array[:limit], True)


@pytest.mark.parametrize("case", [LATE_POINT, LATE_RECORD], ids=["point", "record"])
def test_without_the_journal_marker_unfinished_slots_are_passed_over(tmp_path, monkeypatch, report, case):
    case(tmp_path)
    monkeypatch.setattr(JournalReader, "cut", without_markers)
    with pytest.raises(AssertionError):
        case(tmp_path)
    report(f"WITHOUT the journal marker, RED as it must be: {case.__name__}")


def only_one_watch_looks(call, db):
    """A run is lost while a watch has the lease: another one leaves it alone."""
    first, second = (watch.RunWatch(db, LOST_AFTER) for _ in range(2))
    release_leases(db)
    assert first.run_once() == 0
    lost = started(call, Session(secrets.token_hex(16), owner=True))
    silence(db, lost, 2 * LOST_AFTER)
    assert second.run_once() == 0
    assert first.run_once() == 1


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_without_the_lease_two_watches_look_at_once(store, request, tmp_path, monkeypatch, report):
    uri = str(tmp_path / "store") if store == "sqlite" else request.getfixturevalue("postgres_dsn")
    with running_server(uri, lost_after=0.0) as server, grpc.insecure_channel(server.grpc) as channel:
        call, db = GrpcDoor(channel).call, server.server.context.db
        only_one_watch_looks(call, db)
        monkeypatch.setattr(watch, "take", lambda *_: True)
        with pytest.raises(AssertionError):
            only_one_watch_looks(call, db)
    report(f"WITHOUT the lease, RED as it must be; {store}: only_one_watch_looks")
