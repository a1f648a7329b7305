"""What the caller of a session may write to, decided inside the transaction that writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from runstream.v1 import metrics_pb2
from runstream_server.access.caller import Caller, Principal, acting
from runstream_server.access.identity import stamp_declaration
from runstream_server.access.resources import Target, not_found
from runstream_server.access.roles import Roles
from runstream_server.access.rules import READER, WRITER
from runstream_server.errors import PermissionDenied, ServerError, SessionTaken, Unauthenticated
from runstream_server.store.run_creation import EnsureExperiment, ensure_run
from runstream_server.store.run_locks import RunKey
from runstream_server.validation import parse_experiment_id

Report = Callable[[Caller, str, ServerError], None]
"""Told what a caller may not write to, and why; called in the event loop, returns at once."""


@dataclass(frozen=True)
class Rights:
    """The grants of one caller."""

    roles: Roles
    """Roles that were found lately."""
    caller: Caller
    """Who it is; looked at anew while its stream is open."""
    report: Report
    """Puts refusals into the audit log."""

    @property
    def login(self) -> str:
        """Return the login."""
        return self.caller.login

    @property
    def user(self) -> int:
        """Return the key of the user. Raises: Unauthenticated."""
        return self._principal.user

    @property
    def _principal(self) -> Principal:
        if self.caller.principal is None:
            raise Unauthenticated("this call needs credentials")
        return self.caller.principal

    def taken(self, session_id: str, principal: int | None) -> ServerError | None:
        """Return why the caller may not go on with a session, None when it may.

        principal: key of the user who opened it. What another user wrote into it would carry the name of
        that one, and what that one sends after would pass for sent.
        """
        own = self._principal
        if principal in (None, own.user) or own.admin:
            return None
        return SessionTaken(
            f"session {session_id} was opened by another user; deliver its journal with that user's "
            "credentials or as an administrator: runstream sync",
            field="session_id",
        )

    def refusal(self, connection: sa.Connection, run: RunKey, *, remember: bool = True) -> ServerError | None:
        """Return why the caller may not write to a run, None when it may."""
        role = self._role(connection, run.experiment, remember=remember)
        if role >= WRITER:
            return None
        if role < READER:
            return not_found("run", run.run_id, "run_id")
        return PermissionDenied(f"run {run.run_id} needs the role writer, you have reader", field="run_id")

    def ensure_run(
        self,
        connection: sa.Connection,
        declaration: metrics_pb2.RunDeclaration,
        ensure_experiment: EnsureExperiment,
    ) -> None:
        """Find or create a run that a session declares, where the caller may write to it.

        Raises: as `ensure_run` of the store; NotFound, PermissionDenied, with nothing created.
        """
        if declaration.create and (declaration.experiment_id or not declaration.experiment_name):
            text = declaration.experiment_id or "0"
            if self._role(connection, parse_experiment_id(text)) < READER:
                raise not_found("experiment", text, "experiment_id")
        # An experiment made here gets its maker as manager; one found by name may be a stranger's.
        with connection.begin_nested(), acting(self.caller):
            run = ensure_run(connection, stamp_declaration(declaration, self.login), ensure_experiment)
            # Not remembered: what this transaction made may be rolled back yet.
            if error := self.refusal(connection, run, remember=False):
                raise error

    def _role(self, connection: sa.Connection, experiment: int, *, remember: bool = True) -> int:
        principal = self._principal
        if principal.admin:
            return WRITER
        target = Target("experiment", experiment)
        return self.roles.role(connection, principal.user, target, WRITER, remember=remember)
