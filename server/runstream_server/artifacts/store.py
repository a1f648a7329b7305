"""All artifact stores of one server: which one a location belongs to, and the threads they block."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from runstream_server.artifacts import locations, schemes
from runstream_server.artifacts.base import ArtifactStore
from runstream_server.artifacts.local import LocalStore
from runstream_server.artifacts.locations import Location, LocationSettings
from runstream_server.artifacts.path import ArtifactPath
from runstream_server.errors import FailedPrecondition, InvalidArgument, ServerError

logger = logging.getLogger("runstream.artifacts")

P = ParamSpec("P")
T = TypeVar("T")


class ArtifactSettings(LocationSettings, Protocol):
    """The settings of artifact stores; `Settings` is one."""

    @property
    def s3_endpoint_url(self) -> str | None:
        """Endpoint of S3 stores."""
        ...

    @property
    def threads(self) -> int:
        """Threads that may wait for a store at once."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is: a store and a path in it."""

    store: ArtifactStore
    """The store."""
    root: ArtifactPath
    """What the path is relative to for the caller: a run's artifacts, seen from the store's root."""
    path: ArtifactPath
    """Path from the store's root."""
    served: bool = True
    """Whether its bytes may go through this server."""

    def __truediv__(self, path: ArtifactPath) -> Place:
        return Place(self.store, self.root, self.path / path, self.served)


class Artifacts:
    """The artifact stores of a server, opened when first used.

    Raises: LocationError when a setting names no location, Unsupported when none serves its scheme.
    """

    def __init__(self, settings: ArtifactSettings) -> None:
        self.settings = settings
        self._roots = locations.roots(settings)
        self._lock = threading.Lock()
        self._stores: dict[Location, ArtifactStore] = {}
        self.transfers = 0
        """Uploads under way; changed in the event loop only."""
        # Threads of their own: an object store that hangs must not take those of the database.
        self._executor = ThreadPoolExecutor(settings.threads, thread_name_prefix="artifacts")
        if isinstance(store := self.destination(), LocalStore) and (count := store.clean()):
            logger.info("removed %d leftovers of broken uploads", count)

    async def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking `fn` of a store on a thread and return what it returned. Raises: what `fn` raises."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: fn(*args, **kwargs))

    def start(self, fn: Callable[[], None]) -> None:
        """Run `fn` on a thread and do not wait for it; a failure is logged."""

        def run() -> None:
            try:
                fn()
            except Exception:
                logger.exception("ending a transfer")

        try:
            self._executor.submit(run)
        except RuntimeError:  # the server is stopping and its threads have ended
            run()

    def destination(self) -> ArtifactStore:
        """Return the store behind mlflow-artifacts:/."""
        return self._store(self._roots[0])

    def locate(self, uri: str) -> Place:
        """Return where a stored location is.

        Raises: FailedPrecondition when it lies outside of all stores of this server, as old or foreign rows
        may; Unsupported when it is inside one that the server was given and does not serve.
        """
        try:
            inside = [
                (root, path) for root in self._roots if (path := locations.below(uri, root)) is not None
            ]
            proxied = locations.below(uri, locations.PROXIED_ROOT)
        except InvalidArgument:
            raise _outside() from None
        if proxied is not None:
            return Place(self.destination(), proxied, proxied, self.settings.serve_artifacts)
        if inside:
            root, path = max(inside, key=lambda found: len(found[0].path.parts))
            return Place(
                self._store(root), path, path, self.settings.serve_artifacts or root.scheme == "file"
            )
        raise _outside()

    def spellings(self, uri: str) -> list[str]:
        """Return a stored location, and how else it can be written when the stores of this server overlap."""
        try:
            place = self.locate(uri)
        except ServerError:
            return [uri]
        other = self._roots[0] if place.store is self.destination() else None
        return [uri, str(other / place.path)] if other and self.settings.allowed_artifact_stores else [uri]

    def check(self) -> list[str]:
        """Return what keeps stores from working, in words for whoever runs the server."""
        faults = []
        for root in self._roots:
            try:
                self._store(root).check()
            except ServerError as error:
                faults.append(error.message)
        return faults

    def close(self) -> None:
        """Let running calls end and stop the threads."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _store(self, root: Location) -> ArtifactStore:
        with self._lock:
            if root not in self._stores:
                self._stores[root] = schemes.open_store(root, self.settings.s3_endpoint_url)
            return self._stores[root]


def _outside() -> FailedPrecondition:
    return FailedPrecondition(
        "the artifacts lie outside of the stores that this server may use; add their location to "
        "RUNSTREAM_ALLOWED_ARTIFACT_STORES on the server if they should be reachable"
    )
