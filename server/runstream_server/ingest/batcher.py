"""Group commit: one thread that commits whatever queued while the previous commit ran.

event loop                         writer's thread
put ──> queue (bounded in bytes) ──> group ──> Commit ──> COMMIT
done <──────── call_soon_threadsafe ◄──────── outcomes

COMMIT done          every work gets its outcome
one work guilty      it gets its error, the others are tried again
permanent error      halves, each alone, down to one work, down to its units
transient error      the whole group again, after a pause, for as long as it takes
lost during COMMIT   sessions again, since their watermarks tell what happened, and unary calls with an
                     Idempotency-Key, which tells too; other unary callers are told UNAVAILABLE, because
                     nothing tells, and equal points read back once anyway
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from runstream_server.errors import Internal, ServerError, Unavailable
from runstream_server.ingest import quick, sessions
from runstream_server.ingest.commit import Commit, WorkFailed
from runstream_server.ingest.connection import WriterConnection
from runstream_server.ingest.memory import Memory
from runstream_server.ingest.storage import Storage
from runstream_server.ingest.work import Outcome, SessionWork, UnaryWork, Work
from runstream_server.store.engine import Database, is_transient, lost_race

logger = logging.getLogger("runstream.ingest")

GROUP_BYTES = 2 << 20
"""Size after which a group is full."""
GATHER_SECONDS = 0.1
"""How long batches of several sessions wait for more: a commit costs milliseconds however little it holds."""
GATHER_BYTES = 64 << 10
"""Size after which they do not wait any more."""
HEARTBEAT_SECONDS = 10.0
"""Least time between two notes that sessions are in use."""
_PAUSE = (0.02, 5.0)

Answer = tuple[Work, Outcome | ServerError | None]


class _Unsure(Exception):
    """The connection broke during COMMIT: it may or may not have happened."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a writer did since it started, and what it has in hand."""

    queued: int
    """Size of works that are not answered, in bytes as `Work.size` counts them."""
    limit: int
    """Size above which works wait for room."""
    waiting: int
    """Works that do."""
    commits: int
    works: int
    """Works that were answered."""
    seconds: float
    """Time in which something was committed, retries and their pauses included."""


class Batcher:
    """A queue of works and the thread that commits them."""

    def __init__(self, db: Database, memory: Memory, *, queue_bytes: int) -> None:
        self._memory = memory
        self._limit = queue_bytes
        self._connection = WriterConnection(db)
        self._queue: deque[Work] = deque()
        self._ready = threading.Condition()
        self._stopping = threading.Event()
        self._deadline = 0.0
        self._crowded = False
        """The last group came from several sessions, so more of them are on their way."""
        self._gathering = False
        self._touched: set[str] = set()
        self._touch_time = time.monotonic()
        self._commits = 0
        self._busy = 0.0
        self._thread = threading.Thread(target=self._run, name="metric-writer", daemon=True)
        # What follows belongs to the event loop.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held = 0
        self._works = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def start(self) -> None:
        """Start the thread; call it in the event loop that puts works."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self, grace: float) -> None:
        """Commit what is queued, for at most `grace` seconds, and end the thread."""
        with self._ready:
            self._deadline = time.monotonic() + grace
            self._stopping.set()
            self._ready.notify()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)

    def try_put(self, work: Work) -> bool:
        """Queue a work unless the queue is full; return whether it did. Raises: Unavailable at the end."""
        if not self._fits(work):
            return False
        self._put(work)
        return True

    async def put(self, work: Work) -> None:
        """Queue a work, waiting for room. Raises: Unavailable when the writer ends."""
        woken = not self._waiting
        while not (woken and self._fits(work)):
            room = asyncio.get_running_loop().create_future()
            self._waiting.append(room)
            try:
                await room
            except asyncio.CancelledError:
                if room in self._waiting:
                    self._waiting.remove(room)
                else:
                    self._wake()  # the room was ours to take: leave it to the next one
                raise
            woken = True
        self._put(work)
        self._wake()

    def counts(self) -> Counts:
        """Return the counts; call it in the event loop."""
        waiting = len(self._waiting)
        return Counts(self._held, self._limit, waiting, self._commits, self._works, self._busy)

    def touch(self, session_id: str) -> None:
        """Note that a session is in use; written at most every HEARTBEAT_SECONDS."""
        with self._ready:
            self._touched.add(session_id)

    def _fits(self, work: Work) -> bool:
        return not self._held or self._held + work.size <= self._limit

    def _put(self, work: Work) -> None:
        if self._stopping.is_set():
            raise Unavailable("the server is shutting down; reconnect")
        self._held += work.size
        with self._ready:
            self._queue.append(work)
            if not (self._gathering and _patient(work) and self._held < GATHER_BYTES):
                self._ready.notify()

    def _wake(self) -> None:
        while self._waiting:
            room = self._waiting.popleft()
            if not room.done():
                room.set_result(None)
                return

    def _deliver(self, answers: Sequence[Answer]) -> None:
        """Run in the event loop: account for works and tell their callers."""
        for work, outcome in answers:
            if work.answered:
                continue
            work.answered = True
            self._works += 1
            self._held -= work.size
            try:
                work.done(outcome)  # type: ignore[arg-type]
            except Exception:
                logger.exception("an answer of the metric writer was not taken")
        self._wake()

    # The writer's thread.

    def _run(self) -> None:
        try:
            while (group := self._take()) is not None:
                begin = time.monotonic()
                try:
                    self._process(group)
                    self._heartbeat()
                except Exception:  # the thread must live, and every caller must have an answer
                    logger.exception("the metric writer failed on %d works", len(group))
                    self._answer((work, _internal()) for work in group)
                self._busy += time.monotonic() - begin
        finally:
            self._connection.close()

    def _take(self) -> list[Work] | None:
        with self._ready:
            while not self._queue:
                if self._stopping.is_set():
                    return None
                self._ready.wait(HEARTBEAT_SECONDS)
                if self._touched:
                    break
            self._gather()
            group: list[Work] = []
            size = 0
            while self._queue and (not group or size + self._queue[0].size <= GROUP_BYTES):
                work = self._queue.popleft()
                size += work.size
                group.append(work)
            self._crowded = len({work.session_id for work in group if isinstance(work, SessionWork)}) > 1
            return group

    def _gather(self) -> None:
        """Let small batches of several sessions wait for each other, unless somebody waits for an answer."""
        deadline = time.monotonic() + GATHER_SECONDS
        self._gathering = self._crowded
        while self._gathering:
            left = deadline - time.monotonic()
            self._gathering = (
                left > 0
                and not self._stopping.is_set()
                and all(map(_patient, self._queue))
                and sum(work.size for work in self._queue) < GATHER_BYTES
            )
            if self._gathering:
                self._ready.wait(left)

    def _process(self, works: list[Work], careful: bool = False) -> None:
        pause = _PAUSE[0]
        general = careful
        while works := self._drop_cancelled(works):
            try:
                if not general:
                    general = True
                    works = self._quick(works)
                    continue
                self._answer(zip(works, self._transaction(works, careful), strict=True))
                return
            except WorkFailed as failed:
                self._answer([(failed.work, failed.error)])
                works = [work for work in works if work is not failed.work]
                continue
            except _Unsure as unsure:
                error: BaseException = unsure.__cause__ or unsure
                lost = [work for work in works if isinstance(work, UnaryWork) and not work.scope]
                self._answer((work, _away()) for work in lost)
                works = [work for work in works if isinstance(work, SessionWork) or work.scope]
            except Exception as caught:
                if not is_transient(caught):
                    self._divide(works, careful, caught)
                    return
                error = caught
            if self._gives_up():
                self._answer((work, _away()) for work in works)
                return
            if not lost_race(error):
                logger.warning(
                    "commit of %d works failed, again in %.2f s: %s", len(works), pause, _name(error)
                )
            if self._stopping.is_set():
                time.sleep(pause)
            else:
                self._stopping.wait(pause * random.uniform(0.5, 1))
            pause = min(_PAUSE[1], pause * 2)

    def _divide(self, works: list[Work], careful: bool, error: BaseException) -> None:
        if len(works) > 1:
            logger.warning("commit of %d works refused (%s); halves are tried", len(works), _name(error))
            half = len(works) // 2
            self._process(works[:half])
            self._process(works[half:])
        elif isinstance(works[0], SessionWork) and not careful:
            self._process(works, careful=True)
        elif isinstance(error, ServerError):
            self._answer([(works[0], error)])
        else:
            logger.error("work of the metric writer failed", exc_info=error)
            self._answer([(works[0], _internal())])

    def _quick(self, works: list[Work]) -> list[Work]:
        """Commit a few unary points in one statement; return the works that need the general way."""
        connection = self._connection.get()
        if not quick.suits(connection, works):
            return works
        if quick.is_stale(connection):
            self._connection.drop()
            connection = self._connection.get()
        unary = [work for work in works if isinstance(work, UnaryWork)]
        try:
            done = quick.commit(connection, unary, self._memory.storage)
        except Exception as error:
            self._roll_back(error)
            if is_transient(error) and not lost_race(error):
                raise _Unsure from error
            raise
        self._commits += 1
        self._answer((work, None) for work in unary if work.run_id in done)
        return [work for work in unary if work.run_id not in done]

    def _transaction(self, works: Sequence[Work], careful: bool) -> list[Outcome | ServerError | None]:
        connection = self._connection.get()
        commit = Commit(connection, works, self._memory, careful)
        transaction = connection.begin()
        try:
            commit.run()
        except BaseException as error:
            self._roll_back(error)
            raise
        try:
            transaction.commit()
        except Exception as error:
            self._roll_back(error)
            if is_transient(error) and not lost_race(error):
                _remember(works, commit.outcomes)
                raise _Unsure from error
            raise
        self._commits += 1
        self._memory.learn(commit.learned, commit.failed, commit.arrived)
        if commit.left_deltas:
            self._memory.unsettled.set()
        return commit.outcomes

    def _roll_back(self, error: BaseException) -> None:
        self._memory.storage = Storage()  # the ids it has may be those of a transaction that never was
        connection = self._connection.get()
        try:
            transaction = connection.get_transaction()
            if transaction is not None:
                transaction.rollback()
        except Exception:
            self._connection.drop()
            return
        if connection.invalidated or connection.closed or (is_transient(error) and not lost_race(error)):
            self._connection.drop()

    def _drop_cancelled(self, works: list[Work]) -> list[Work]:
        gone = [work for work in works if work.cancelled]
        if gone:
            self._answer((work, _away()) for work in gone)
        return [work for work in works if not work.cancelled]

    def _gives_up(self) -> bool:
        return self._stopping.is_set() and time.monotonic() > self._deadline

    def _heartbeat(self) -> None:
        if not self._touched or time.monotonic() - self._touch_time < HEARTBEAT_SECONDS:
            return
        with self._ready:
            touched, self._touched = self._touched, set()
        self._touch_time = time.monotonic()
        # On the writer's own connection: a pool that is dry must not hold points up.
        connection = self._connection.get()
        try:
            with connection.begin():
                sessions.touch(connection, touched)
        except Exception as error:
            self._roll_back(error)
            logger.warning("heartbeats of %d sessions not noted: %s", len(touched), _name(error))

    def _answer(self, answers: object) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._deliver, list(answers))  # type: ignore[call-overload]
        except RuntimeError:
            logger.debug("the event loop ended before its answers")


def _patient(work: Work) -> bool:
    """Whether nobody waits for a work: a batch of a stream, whose client has its own journal."""
    return isinstance(work, SessionWork) and work.patient and work.size < GATHER_BYTES


def _remember(works: Sequence[Work], outcomes: Sequence[Outcome | ServerError | None]) -> None:
    for work, outcome in zip(works, outcomes, strict=True):
        if isinstance(work, SessionWork) and isinstance(outcome, Outcome):
            work.unsure = outcome


def _name(error: BaseException) -> str:
    return type(getattr(error, "orig", None) or error).__name__


def _away() -> Unavailable:
    return Unavailable("the database cannot be reached right now; retry in a moment")


def _internal() -> Internal:
    return Internal("internal error; the server's log has the details")
