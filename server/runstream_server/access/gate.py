"""The one place that decides on calls, whichever door they came through."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from runstream.v1 import permissions_pb2 as pb
from runstream_server.access.caller import Caller, current
from runstream_server.access.credentials import Authenticator
from runstream_server.access.identity import stamp
from runstream_server.access.record import Recorder
from runstream_server.access.resources import Target, find, not_found
from runstream_server.access.roles import FRESH, Roles
from runstream_server.access.rules import READER, ROLE_NAMES, Named, Rule, rules_of
from runstream_server.access.throttle import Throttle
from runstream_server.config import Settings
from runstream_server.errors import (
    Internal,
    NotFound,
    PermissionDenied,
    ServerError,
    Unauthenticated,
    Unavailable,
)
from runstream_server.store.engine import Database

logger = logging.getLogger("runstream.access")

WATCH = 1.0
"""Seconds between looks at the credentials of an open stream."""
_MAX_ALLOWED = 200_000

Call = Callable[..., Awaitable[Any]]
"""Runs `function, *args` on the thread pool."""


class Gate:
    """Authenticates and authorizes; used in one event loop, `decide` and `roles` in any thread."""

    def __init__(
        self, db: Database, call: Call, settings: Settings, methods: Mapping[str, MethodDescriptor]
    ) -> None:
        """methods: all of them by full name, streams too. Raises: Internal for one without declaration."""
        self._db = db
        self._call = call
        self._settings = settings
        self._recorder = Recorder(db, call)
        throttle = Throttle(settings.auth_failures)
        self._authenticator = Authenticator(db, call, throttle, self._recorder.note_sign_in)
        self._reports: set[asyncio.Task[None]] = set()
        self._allowed: dict[tuple[int, str, str], tuple[int, float]] = {}
        self._looking: dict[tuple[int, tuple[Named, ...]], asyncio.Future[None]] = {}
        self.roles = Roles()
        """Roles that were found lately."""
        self.rules = rules_of(methods)
        """Rule of each method by full name."""

    async def enter(self, authorization: str, source: str) -> Caller:
        """Return who calls. Raises: Unauthenticated; Exhausted; Unavailable."""
        principal = await self._authenticator.authenticate(authorization, source)
        return Caller(principal, source, authorization)

    def forget(self) -> None:
        """Believe nothing any more; what changes users, tokens and grants calls it."""
        self._authenticator.forget()
        self._allowed = {}
        self.roles.forget()

    def report(self, caller: Caller, resource: str, error: ServerError) -> None:
        """Put into the audit log what a session may not write to; returns at once."""
        if self._recorder.is_news(caller, resource):
            task = asyncio.create_task(self._recorder.note_refused(caller, resource, error))
            self._reports.add(task)
            task.add_done_callback(self._reports.discard)

    def is_public(self, method: str) -> bool:
        """Return whether a method needs no credentials."""
        rule = self.rules.get(method)
        return rule is not None and rule.permission == pb.PERMISSION_PUBLIC

    async def run(self, method: str, request: Message, call: Callable[[], Awaitable[Any]]) -> Any:
        """Make a unary call if the current caller may, and return what it returns.

        Raises: Unauthenticated; NotFound; PermissionDenied; what `call` raises.
        """
        caller = present(current())
        rule = await self.check(method, request, caller)
        stamp(request, caller.login)
        try:
            response = await call()
        except Exception as error:
            if rule.changes and not rule.frequent:
                await self._recorder.note(caller, rule, request, error)
            raise
        if rule.filtered and not caller.filtered and not caller.free and response.ByteSize():
            raise Internal(f"{rule.method} does not leave out what a caller may not read")
        if rule.changes and not rule.frequent:
            await self._recorder.note(caller, rule, request)
        return response

    async def check(self, method: str, request: Message, caller: Caller, *, complete: bool = True) -> Rule:
        """Return the rule of a method if the caller may call it with this request.

        complete: refuse a request that names no resource. Raises: Unauthenticated; NotFound;
        PermissionDenied; InvalidArgument.
        """
        rule = self.rules.get(method)
        if rule is None:
            raise PermissionDenied(f"{method} does not say who may call it")
        if rule.permission == pb.PERMISSION_PUBLIC:
            return rule
        if caller.principal is None:
            raise Unauthenticated("this call needs credentials")
        if caller.principal.admin or rule.permission == pb.PERMISSION_AUTHENTICATED or rule.by_unit:
            return rule
        try:
            if rule.permission == pb.PERMISSION_ADMIN:
                raise PermissionDenied(f"{rule.method} is for administrators")
            if unknown := self._unknown(rule, request, caller.principal.user, complete):
                await self._look(caller.principal.user, unknown)
        except (PermissionDenied, NotFound) as error:
            # Who only looks and does not find, as set_experiment before it makes one, is no news.
            if rule.changes or isinstance(error, PermissionDenied):
                await self._recorder.note(caller, rule, request, error)
            raise
        return rule

    def _unknown(self, rule: Rule, request: Message, user: int, complete: bool) -> tuple[Named, ...]:
        """Return what a request names and was not found allowed a moment ago. Raises: InvalidArgument."""
        oldest = time.monotonic() - FRESH
        unknown: list[Named] = []
        for item, name in rule.asked(request, complete=complete):
            role, since = self._allowed.get((user, item.kind, name), (0, 0.0))
            if role < item.role or since <= oldest:
                unknown.append(item.named(name))
        return tuple(unknown)

    async def _look(self, user: int, names: tuple[Named, ...]) -> None:
        """Read what is asked, or wait for another call that reads the same. Raises: as `_decide`."""
        if looking := self._looking.get((user, names)):
            try:
                await asyncio.shield(looking)
            except ServerError:
                pass  # it may have begun before a grant that was given since: look again
            else:
                return
        looking = asyncio.ensure_future(self._call(self._db.read, self._decide, user, names))
        self._looking[user, names] = looking
        looking.add_done_callback(lambda done: self._looked((user, names), done))
        await asyncio.shield(looking)

    def _looked(self, asked: tuple[int, tuple[Named, ...]], done: asyncio.Future[None]) -> None:
        if self._looking.get(asked) is done:
            del self._looking[asked]
        if not done.cancelled():
            done.exception()  # whoever waited has it

    def _decide(self, connection: sa.Connection, user: int, names: Sequence[Named]) -> None:
        """Look at resources and grants. Raises: NotFound; PermissionDenied; InvalidArgument."""
        now = time.monotonic()
        if len(self._allowed) > _MAX_ALLOWED:
            self._allowed = {}
        found = self._find(connection, names)
        targets = {item for kind in found.values() for item in kind.values() if item}
        roles = self.roles.read(connection, user, targets)
        for named in names:
            if named.name not in found[named.kind]:
                if named.may_be_new:
                    continue
                raise not_found(named.kind, named.name, named.path)
            target = found[named.kind][named.name]
            role = roles.get(target, 0) if target else named.role
            if role < READER:
                raise not_found(named.kind, named.name, named.path)
            if role < named.role:
                raise _denied(named.role, role, f"{named.kind.replace('_', ' ')} {named.name[:100]}")
            if target:
                self._allowed[user, named.kind, named.name] = role, now

    def _find(
        self, connection: sa.Connection, names: Sequence[Named]
    ) -> dict[str, Mapping[str, Target | None]]:
        return {
            kind: find(connection, kind, (n.name for n in names if n.kind == kind), self._settings)
            for kind in sorted({named.kind for named in names})
        }

    @contextlib.asynccontextmanager
    async def streaming(self, method: str, request: Any, *, single: bool) -> AsyncIterator[Any]:
        """Give a stream its requests, each checked, and end it when the caller may no longer call it.

        single: `request` is one message, else an iterator of them. Raises: as `check`.
        """
        caller = present(current())
        if single:
            rule = await self.check(method, request, caller)
            again = request
        else:
            rule, again = self.rules[method], None
            if not rule.by_unit:
                request = self._checked(method, request, caller)
        async with self.watching(caller, method, again):
            yield request
        if single and rule.filtered and not caller.filtered and not caller.free:
            logger.error("%s does not leave out what a caller may not read", rule.method)

    async def _checked(self, method: str, requests: Any, caller: Caller) -> AsyncIterator[Message]:
        complete = True
        async for request in requests:
            await self.check(method, request, caller, complete=complete)
            complete = False
            yield request

    @contextlib.asynccontextmanager
    async def watching(
        self, caller: Caller, method: str = "", request: Message | None = None
    ) -> AsyncIterator[None]:
        """End what runs inside when the credentials, or the right to `request`, are taken away.

        Raises: Unauthenticated; NotFound; PermissionDenied.
        """
        task = asyncio.current_task()
        assert task is not None
        failed: list[ServerError] = []

        async def watch() -> None:
            while True:
                await asyncio.sleep(WATCH)
                try:
                    caller.principal = (await self.enter(caller.authorization, caller.source)).principal
                    if request is not None:
                        await self.check(method, request, caller)
                except Unavailable:
                    continue  # the database is away: nothing can be read or written meanwhile
                except ServerError as error:
                    failed.append(error)
                    task.cancel()
                    return

        watcher = asyncio.create_task(watch())
        try:
            yield
        except asyncio.CancelledError:
            if not failed:
                raise
            task.uncancel()
            raise failed[0] from None
        finally:
            watcher.cancel()


def present(caller: Caller | None) -> Caller:
    """Return the caller. Raises: Unauthenticated where a door let nobody in, which no door does."""
    if caller is None:
        raise Unauthenticated("this call needs credentials")
    return caller


def _denied(needed: int, has: int, what: str) -> PermissionDenied:
    wanted, own = ROLE_NAMES[needed], ROLE_NAMES[has]
    return PermissionDenied(f"{what} needs the role {wanted}, you have {own}; ask a manager of it")
