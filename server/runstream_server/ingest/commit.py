"""One attempt at one transaction for a group of works.

    keys of idempotent calls, in order          what was done before is answered and not done
    sessions created and locked, by id          watermarks are stable from here on
    runs declared, numbered, locked, by id      they can be neither deleted nor rewound
    each work judged                            apply, resend, gap, wait, refuse
    params, tags, status; segments; latest, or deltas of it
    watermarks compared and set

Nothing here outlives a rollback: what was learned is handed over after the commit (`Memory.learn`).
"""

from __future__ import annotations

import logging
from collections import ChainMap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise

import numpy as np
import sqlalchemy as sa

from runstream.v1 import metrics_pb2
from runstream_server.errors import (
    Internal,
    NotFound,
    PermissionDenied,
    ServerError,
    SessionExpired,
    Unavailable,
)
from runstream_server.ingest import console, deltas, events, latest, sessions
from runstream_server.ingest.collect import PartPoints, collect_session, collect_unary
from runstream_server.ingest.memory import Memory, SessionRun
from runstream_server.ingest.pieces import visible
from runstream_server.ingest.points import joined
from runstream_server.ingest.refusals import reason_to_refuse, refusal, refused_declaration
from runstream_server.ingest.scan import read_limits
from runstream_server.ingest.segments import encode_all
from runstream_server.ingest.sessions import Verdict
from runstream_server.ingest.storage import SegmentRow
from runstream_server.ingest.summaries import summarise
from runstream_server.ingest.work import (
    ConsoleUnit,
    EventUnit,
    Outcome,
    PointsUnit,
    SessionWork,
    UnaryWork,
    Unit,
    Work,
)
from runstream_server.store.engine import is_transient
from runstream_server.store.idempotency import claim, forget
from runstream_server.store.liveness import take_back
from runstream_server.store.model_metrics import write_model_metrics
from runstream_server.store.runs import RunKey, ensure_run, lock_runs, require_active, resolve, run_not_found

logger = logging.getLogger("runstream.ingest")


class WorkFailed(Exception):
    """Raised when a work cannot be committed and what it wrote must be rolled back."""

    def __init__(self, work: Work, error: ServerError) -> None:
        super().__init__(error.message)
        self.work = work
        self.error = error


@dataclass
class Commit:
    """Applies `works` within the transaction of `connection`; `outcomes` are true once that is committed."""

    connection: sa.Connection
    works: Sequence[Work]
    memory: Memory
    careful: bool = False
    """Try each unit in a savepoint, and refuse those that the database does not take."""
    outcomes: list[Outcome | ServerError | None] = field(default_factory=list)
    """Answer to each work; None is success of a unary one."""
    learned: dict[SessionRun, int] = field(default_factory=dict)
    """Source numbers found or given."""
    failed: dict[SessionRun, metrics_pb2.RunDeclaration] = field(default_factory=dict)
    """Declarations that cannot be met."""
    arrived: set[SessionRun] = field(default_factory=set)
    """Runs that exist."""
    left_deltas: bool = False
    """Whether `latest_metrics` is to be brought up to date."""
    _known: dict[int, ServerError | None] = field(default_factory=dict)
    _twins: dict[int, UnaryWork] = field(default_factory=dict)
    _fences: dict[SessionRun, int] = field(default_factory=dict)
    _denied: dict[SessionRun, ServerError] = field(default_factory=dict)
    _taken: dict[int, ServerError] = field(default_factory=dict)
    _found: dict[str, int] = field(default_factory=dict)
    _marks: dict[str, int] = field(default_factory=dict)
    _runs: dict[str, RunKey] = field(default_factory=dict)
    _outcome: dict[int, Outcome] = field(default_factory=dict)

    def run(self) -> None:
        """Do everything up to the COMMIT. Raises: WorkFailed; whatever the database raises."""
        members = [work for work in self.works if isinstance(work, SessionWork)]
        self._outcome = {id(work): Outcome() for work in members}
        self._claim()
        self._hold_sessions(members)
        members = [work for work in members if id(work) not in self._taken]
        self._find_strangers(members)
        self._declare(members)
        self._hold_runs(members)
        units: list[Unit] = []
        unary: list[tuple[UnaryWork, RunKey]] = []
        for work in self.works:
            answer = self._judge(work, units) if isinstance(work, SessionWork) else self._check(work, unary)
            self.outcomes.append(answer)
        self._take_back(members)
        self._apply(units, unary)
        self._move(members)

    def _hold_sessions(self, works: Sequence[SessionWork]) -> None:
        opening = {work.session_id: work for work in works if work.open}
        if opening:
            opens = [work.open for work in opening.values() if work.open]
            principals = {key: work.rights.user for key, work in opening.items() if work.rights}
            sessions.create(self.connection, opens, principals)
        held = sessions.lock(self.connection, {work.session_id for work in works})
        self._found = {key: item.watermark for key, item in held.items()}
        self._marks = dict(self._found)
        for work in works:
            item = held.get(work.session_id)
            if work.rights and item and (error := work.rights.taken(work.session_id, item.principal)):
                self._taken[id(work)] = error

    def _find_strangers(self, works: Sequence[SessionWork]) -> None:
        """Note which runs are not for the callers of these works to write to."""
        asked = [
            (work, {*work.run_ids, *(item.run_id for item in self._declarations(work))})
            for work in works
            if work.rights
        ]
        if not asked:
            return
        known = resolve(self.connection, {run_id for _, run_ids in asked for run_id in run_ids})
        for work, run_ids in asked:
            assert work.rights
            for run_id in run_ids & known.keys():
                if error := work.rights.refusal(self.connection, known[run_id]):
                    self._denied[work.session_id, run_id] = error

    def _declare(self, works: Sequence[SessionWork]) -> None:
        pending = [
            (declaration, work)
            for work in works
            if work.session_id in self._marks
            for declaration in self._declarations(work)
            if (work.session_id, declaration.run_id) not in self.memory.sources
        ]
        # In one order everywhere: two writers that create the same runs must not wait for each other.
        for declaration, work in sorted(pending, key=lambda item: item[0].run_id):
            self._ensure(declaration, work)

    def _declarations(self, work: SessionWork) -> Iterator[metrics_pb2.RunDeclaration]:
        if work.open:
            yield from work.open.runs
        yield from work.declarations
        if self.memory.failed:
            again = (self.memory.failed.get((work.session_id, run_id)) for run_id in work.run_ids)
            yield from (item for item in again if item is not None)

    def _ensure(self, declaration: metrics_pb2.RunDeclaration, work: SessionWork) -> None:
        pair = (work.session_id, declaration.run_id)
        if pair in self._denied:
            return  # its points and events are refused one by one
        try:
            if work.rights:
                work.rights.ensure_run(self.connection, declaration, self.memory.ensure_experiment)
            else:
                ensure_run(self.connection, declaration, self.memory.ensure_experiment)
        except Unavailable:
            raise
        except ServerError as error:
            if not declaration.create and error.reason == "RESOURCE_DOES_NOT_EXIST":
                return  # its creator may come later; points wait for it
            if work.rights and isinstance(error, NotFound | PermissionDenied):
                self._outcome[id(work)].denied[f"run {declaration.run_id}"] = error
            if pair not in self.memory.failed:
                self._outcome[id(work)].refused.append(refused_declaration(work, declaration.run_id, error))
            self.failed[pair] = declaration
        else:
            self.arrived.add(pair)

    def _hold_runs(self, works: Sequence[SessionWork]) -> None:
        live = [work for work in works if work.session_id in self._marks]
        pairs = {(work.session_id, item.run_id) for work in live for item in self._declarations(work)}
        pairs |= {(work.session_id, unit.run_id) for work in live for unit in work.points}
        pairs |= {(work.session_id, unit.run_id) for work in live for unit in work.console}
        pairs -= self._denied.keys()
        changing = {
            unit.run_id for work in live for unit in work.events if unit.event.WhichOneof("event") == "status"
        }
        owners = {
            (work.session_id, item.run_id) for work in live for item in self._declarations(work) if item.owner
        }
        self._number({pair for pair in pairs if pair not in self.memory.sources}, changing, owners)
        wanted = {work.run_id for work in self.works if isinstance(work, UnaryWork)}
        wanted |= {run_id for work in works for run_id in work.run_ids} | {run_id for _, run_id in pairs}
        self._runs = lock_runs(self.connection, wanted) if wanted else {}
        self._find_fences({(work.session_id, unit.run_id) for work in live for unit in work.points})

    def _find_fences(self, pairs: set[SessionRun]) -> None:
        """Find out which sources had ended when their runs were rewound; looked up once a rewind."""
        known = self.memory.fences
        rewound = [(pair, self._runs[pair[1]]) for pair in pairs if pair[1] in self._runs]
        asked = {
            (pair[0], key.run): (pair, key.generation)
            for pair, key in rewound
            if key.generation and known.get(pair, (0, None))[0] != key.generation
        }
        if asked:
            found = sessions.read_fences(self.connection, asked)
            known.update({pair: (seen, found.get(key)) for key, (pair, seen) in asked.items()})
        fences = {pair: known[pair][1] for pair, key in rewound if key.generation}
        self._fences = {pair: fence for pair, fence in fences.items() if fence is not None}

    def _number(self, pairs: set[SessionRun], changing: set[str], owners: set[SessionRun]) -> None:
        """Find or give source numbers; hold first, in order, the runs whose rows this commit will change."""
        if not pairs and not changing:
            return
        runs = resolve(self.connection, {run_id for _, run_id in pairs} | changing)
        wanted = {
            (session_id, runs[run_id].run): (session_id, run_id)
            for session_id, run_id in pairs
            if run_id in runs
        }
        sources = sessions.read_sources(self.connection, wanted)
        fresh = wanted.keys() - sources.keys()
        change = {run for _, run in fresh} | {runs[run_id].run for run_id in changing if run_id in runs}
        sessions.hold_for_change(self.connection, sorted(change))
        started = {key for key, pair in wanted.items() if pair in owners}
        sources |= sessions.number_sources(self.connection, fresh, started)
        self.learned = {wanted[key]: source for key, source in sources.items() if key in wanted}

    def _source(self, pair: SessionRun) -> int | None:
        return self.learned.get(pair, self.memory.sources.get(pair))

    def _judge(self, work: SessionWork, units: list[Unit]) -> Outcome | ServerError:
        """Decide about a session's work; add to `units` what is to be applied."""
        if taken := self._taken.get(id(work)):
            return taken
        outcome = self._outcome[id(work)]
        mark = self._marks.get(work.session_id)
        if mark is None:
            return SessionExpired(
                f"session {work.session_id} is unknown and does not start at 0: it was not used for 30 days, "
                "or another server has it; keep the journal and begin a new session"
            )
        outcome.next_sequence = mark
        outcome.opened = work.open is not None
        for item in self._declarations(work) if work.open else ():
            if source := self._source((work.session_id, item.run_id)):
                outcome.sources[item.run_id] = source
        if not work.count:
            return outcome
        verdict = sessions.verdict(work.first, work.count, mark)
        if verdict is Verdict.GAP:
            outcome.opened = True
        elif verdict is Verdict.RESEND:
            outcome.refused += work.unsure.refused if work.unsure else self._refused_before(work)
        elif missing := self._awaited(work):
            outcome.waits_for = missing
        else:
            outcome.next_sequence = self._marks[work.session_id] = work.first + work.count
            units += self._admit(work)
        return outcome

    def _awaited(self, work: SessionWork) -> str | None:
        for run_id in sorted(work.run_ids):
            pair = (work.session_id, run_id)
            if run_id in self._runs:
                self.arrived.add(pair)
            elif pair in self.failed or self.memory.waits(pair):
                return run_id
        return None

    def _admit(self, work: SessionWork) -> list[Unit]:
        good: list[Unit] = []
        for unit in work.units:
            error = self._reason(unit)
            if error:
                self._refuse(unit, error)
            else:
                good.append(unit)
        return good

    def _reason(self, unit: Unit) -> ServerError | None:
        error = self._denied.get((unit.work.session_id, unit.run_id))
        rights, run = unit.work.rights, self._runs.get(unit.run_id)
        if not error and rights and run:
            # It may have come since strangers were looked for.
            error = rights.refusal(self.connection, run)
        if error:
            self._outcome[id(unit.work)].denied[f"run {unit.run_id}"] = error
            return error
        return reason_to_refuse(unit, self._runs)

    def _refuse(self, unit: Unit, error: ServerError) -> None:
        self._outcome[id(unit.work)].refused.append(refusal(unit, error))

    def _refused_before(self, work: SessionWork) -> list[metrics_pb2.RefusedUnit]:
        """Return what of a committed batch was refused: the first answer may have been lost on its way."""
        found = [(unit, error) for unit in work.units if (error := self._reason(unit))]
        bad = {id(unit) for unit, _ in found}
        points = [unit for unit in work.points if id(unit) not in bad]
        others = [unit for unit in work.events if id(unit) not in bad]
        found += collect_session(points, self._runs, _AnySource())[1]
        found += events.changed_params(self.connection, others, self._runs)
        return [refusal(unit, error) for unit, error in found]

    def _check(self, work: UnaryWork, unary: list[tuple[UnaryWork, RunKey]]) -> ServerError | None:
        work = self._twins.get(id(work), work)
        if id(work) in self._known:
            return self._known[id(work)]
        try:
            if work.run_id not in self._runs:
                raise run_not_found(work.run_id)
            unary.append((work, require_active(self._runs[work.run_id])))
            answer = None
        except ServerError as error:
            answer = error
            if work.scope:
                forget(self.connection, work.scope, 0)  # it may be tried again
        self._known[id(work)] = answer
        return answer

    def _claim(self) -> None:
        """Note the keys of unary works, and which of the works have been done before."""
        keyed = [(work.scope, work) for work in self.works if isinstance(work, UnaryWork) and work.scope]
        first: dict[tuple[str, str], UnaryWork] = {}
        # In one order everywhere, as all locks.
        for scope, work in sorted(keyed, key=lambda item: (item[0].user, item[0].key)):
            try:
                if not claim(self.connection, scope, 0)[0]:
                    first[scope.user, scope.key] = work
                elif twin := first.get((scope.user, scope.key)):
                    self._twins[id(work)] = twin
                else:
                    self._known[id(work)] = None
            except ServerError as error:
                self._known[id(work)] = error

    def _take_back(self, works: Sequence[SessionWork]) -> None:
        lost = {run_id for run_id, key in self._runs.items() if key.lost}
        if lost:
            take_back(self.connection, {work.session_id for work in works if work.run_ids & lost})

    def _apply(self, units: list[Unit], unary: list[tuple[UnaryWork, RunKey]]) -> None:
        if not self.careful:
            self._write(units, unary)
            return
        self._write([], unary)
        for unit in units:
            try:
                with self.connection.begin_nested():
                    self._write([unit], [])
            except Exception as error:  # whatever it is, the rest of the batch is not at fault
                if is_transient(error) or isinstance(error, WorkFailed):
                    raise
                logger.error("unit of run %s refused by the database", unit.run_id, exc_info=error)
                self._refuse(unit, Internal("the database does not take this; the server's log says why"))

    def _write(self, units: Sequence[Unit], unary: Sequence[tuple[UnaryWork, RunKey]]) -> None:
        others = [unit for unit in units if isinstance(unit, EventUnit)]
        if others or unary:
            refused, guilty = events.write(self.connection, others, unary, self._runs)
            for work, reason in guilty:
                raise WorkFailed(work, reason)
            for unit, reason in refused:
                self._refuse(unit, reason)
        for work, key in unary:
            try:
                write_model_metrics(self.connection, key, work.metrics)
            except ServerError as error:
                raise WorkFailed(work, error) from None
        points = [unit for unit in units if isinstance(unit, PointsUnit)]
        parts, bad = (
            collect_session(points, self._runs, ChainMap(self.learned, self.memory.sources), self._fences)
            if points
            else ([], [])
        )
        for wrong, reason in bad:
            self._refuse(wrong, reason)
        self._store(parts + collect_unary(unary))
        console.write(
            self.connection,
            [
                console.ConsoleRow(self._runs[unit.run_id].run, source, unit.work.first, unit.chunks)
                for unit in units
                if isinstance(unit, ConsoleUnit)
                and (source := self._source((unit.work.session_id, unit.run_id)))
            ],
            self.memory.console_bytes,
        )

    def _store(self, parts: Sequence[PartPoints]) -> None:
        if not parts:
            return
        made = encode_all([item.points for item in parts])
        rows = [SegmentRow(item.part, len(item.points), data) for item, data in zip(parts, made, strict=True)]
        ids = self.memory.storage.write_segments(self.connection, rows)
        if self._leaves_deltas(parts):
            self._leave(parts, ids)
            return
        parts = self._shown(parts)
        if not parts:
            return
        parts = sorted(parts, key=lambda item: item.part.run)
        if any(a.part.run == b.part.run for a, b in pairwise(parts)):
            summed = (
                latest.rows_of(item.part.run, item.experiment, summarise(item.points)) for item in parts
            )
            latest.add(self.connection, latest.combine(chain.from_iterable(summed)))
            return
        sizes = [len(item.points.keys) for item in parts]
        runs, experiments = (
            np.repeat(np.array(column), sizes)
            for column in zip(*((item.part.run, item.experiment) for item in parts), strict=True)
        )
        latest.add_series(
            self.connection, runs, experiments, summarise(joined([item.points for item in parts]))
        )

    def _leaves_deltas(self, parts: Sequence[PartPoints]) -> bool:
        """Whether so many series have points that `latest_metrics` is brought up to date later."""
        if self.connection.dialect.name == "sqlite" or self._fences:
            return False
        return sum(len(item.points.keys) for item in parts) >= deltas.MANY_SERIES

    def _leave(self, parts: Sequence[PartPoints], segments: Sequence[int]) -> None:
        sizes = [len(item.points.keys) for item in parts]
        runs, experiments = [item.part.run for item in parts], [item.experiment for item in parts]
        summed = summarise(joined([item.points for item in parts]))
        deltas.write(self.connection, runs, segments, experiments, sizes, summed)
        self.left_deltas = True

    def _shown(self, parts: Sequence[PartPoints]) -> Sequence[PartPoints]:
        """Return the points that rewinds leave visible; what ended sources deliver late may be hidden."""
        if not self._fences:
            return parts
        current = {key.run: key.generation for key in self._runs.values()}
        shown = []
        for item in parts:
            points = item.points
            if item.part.generation != current[item.part.run]:
                limits = read_limits(self.connection, item.part.run)
                points = visible(points, limits.of(item.part.generation))
            if len(points):
                shown.append(replace(item, points=points))
        return shown

    def _move(self, works: Sequence[SessionWork]) -> None:
        moves = {
            key: (found, self._marks[key]) for key, found in self._found.items() if self._marks[key] != found
        }
        sessions.compare_and_set(self.connection, moves)
        if opened := {work.session_id for work in works if work.open} & self._found.keys() - moves.keys():
            sessions.touch(self.connection, opened)
        if closed := {work.session_id for work in works if work.close} & self._found.keys():
            sessions.close(self.connection, closed)


class _AnySource(dict[SessionRun, int]):
    def __missing__(self, key: SessionRun) -> int:
        return 0
