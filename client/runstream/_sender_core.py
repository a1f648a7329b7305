"""The sender's main thread: finds journals, drives deliveries, answers calls about them."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runstream import _errors
from runstream._acks import Ack
from runstream._adopt import read_meta
from runstream._errors import RunstreamError, Unavailable
from runstream._monitor import Monitor
from runstream._sender_delivery import DONE, Delivery
from runstream._sender_relay import download, relay
from runstream._sender_uploads import Upload, Uploader
from runstream._sender_upstream import Upstream
from runstream._sender_waiters import Waiter, session_state
from runstream._slots import FORMAT
from runstream._start import version
from runstream._state import StateFolder
from runstream.v1 import metrics_pb2
from runstream.v1.control_pb2 import ControlRequest, ControlResponse, SenderCall, SenderState

if TYPE_CHECKING:
    from runstream._config import Config

logger = logging.getLogger("runstream.sender")
FIND_EVERY = 0.25
HEARTBEAT_EVERY = 10.0
MONITOR_EVERY = 0.5
MAX_UNDER_WAY = 64
"""Batches of all sessions that may be under way."""
MAKE_WAY = 1.0
"""Seconds after which a sender that can never open its store leaves what the dead left to one that can."""
DRAIN_SECONDS = 5.0
SILENCE_SECONDS = 60.0
_BUSY, _CALM, _AWAY = 0.02, 0.1, 0.5  # seconds between looks at the journals; the last: no server to send to
_CALM_AFTER = 3.0


class SenderCore:
    """Delivers the journals of one folder that are written with one set of credentials.

    Only the main thread touches deliveries; other threads post events.
    """

    def __init__(
        self, config: Config, folder: StateFolder, *, only: list[Path] | None = None, monitors: bool = False
    ) -> None:
        """only: these journals; monitors: log system metrics to runs that want them."""
        self._folder = folder
        self._monitor = Monitor(config, folder) if monitors else None
        self._only = only
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._deliveries: dict[str, Delivery] = {}
        self._ignored: set[str] = set()
        self._waiters: list[Waiter] = []
        self._find_at = self._heartbeat_at = self._paused_until = self._monitor_at = 0.0
        self._active_at = self._heard_at = time.monotonic()
        self._stopping = threading.Event()
        self.upstream = Upstream(config, folder.socket("e"), self._post)
        self._uploader = Uploader(
            self.upstream.transport, lambda upload, error: self._post("uploaded", (upload, error))
        )
        self.idle_since = time.monotonic()
        """Since when there is nothing to deliver and nobody who writes."""

    def start(self) -> None:
        """Run in a daemon thread."""
        threading.Thread(target=self.run, name="runstream-sender", daemon=True).start()

    def run(self, linger: float | None = None) -> None:
        """Deliver until `stop`, or until idle for `linger` seconds."""
        while not self._stopping.is_set():
            self.step()
            if linger is not None and self._idle_for() >= (MAKE_WAY if self.upstream.hopeless else linger):
                return

    def step(self) -> None:
        """Handle what happened, look at every journal once, wait a moment."""
        self._handle_events(self._pause())
        now = time.monotonic()
        if now >= self._find_at:
            try:
                self._find()
            except FileNotFoundError:
                logger.warning("the state folder %s is gone", self._folder.path)
                self._stopping.set()
            self._find_at = now + FIND_EVERY
        for delivery in list(self._deliveries.values()):
            try:
                self._work(delivery, now)
            except OSError as error:
                delivery.hold(f"the journal's files cannot be used: {error}")
            except Exception as error:
                logger.exception("journal %s", delivery.session_id)
                delivery.hold(f"the sender failed: {error!r}")
        self._check_silence(now)
        self._look_at_machine(now)
        if now >= self._heartbeat_at:
            self._heartbeats()
            self._heartbeat_at = now + HEARTBEAT_EVERY
        self._answer_waiters(now)

    def _pause(self) -> float:
        if not self.upstream.reachable and not self._waiters and self._only is None:
            return _AWAY
        return _CALM if time.monotonic() - self._active_at > _CALM_AFTER else _BUSY

    def stop(self, timeout: float = DRAIN_SECONDS) -> None:
        """End `run` soon."""
        self._stopping.set()
        self._post("wake", None)

    def close(self) -> None:
        """Wait a little for what is under way, then let everything go."""
        if self._monitor is not None:
            self._monitor.close()
        deadline = time.monotonic() + DRAIN_SECONDS
        while any(item.in_flight for item in self._deliveries.values()) and time.monotonic() < deadline:
            if self.upstream.carrier is None:
                break
            self._handle_events(_BUSY)
        for delivery in self._deliveries.values():
            delivery.save(time.monotonic(), force=True)
            delivery.release()
        self._uploader.stop()
        self.upstream.close()

    def handle(self, request: ControlRequest) -> ControlResponse:
        """Answer a control call; blocks for as long as the call says."""
        if request.HasField("relay"):
            return relay(request, self.upstream, self._post)
        if request.HasField("download"):
            return download(request, self.upstream, self._post)
        call = request.sender
        if call.action == SenderCall.ACTION_DRAIN:
            self.stop()
            return ControlResponse(id=request.id, state=self._own_state())
        if call.action == SenderCall.ACTION_WAKE:
            self._post("wake", None)
        if call.action in (SenderCall.ACTION_FLUSH, SenderCall.ACTION_STATUS):
            flush = call.action == SenderCall.ACTION_FLUSH
            waiter = Waiter(call.session_id, call.sequence, call.timeout if flush else 0.0)
            self._post("flush", waiter)
            try:
                state = waiter.answer.result(timeout=max(0.0, call.timeout) + 10.0)
            except TimeoutError:
                return ControlResponse(id=request.id, code=_errors.UNAVAILABLE, message="the sender is busy")
            return ControlResponse(id=request.id, state=state)
        return ControlResponse(id=request.id, state=self._own_state())

    def sessions(self) -> list[Delivery]:
        """Return the deliveries; for the thread that runs `step`."""
        return list(self._deliveries.values())

    def busy(self) -> bool:
        """Return whether an answer or an upload is awaited."""
        return any(item.in_flight or item.uploads for item in self._deliveries.values())

    def _post(self, name: str, payload: Any) -> None:
        self._events.put((name, payload))

    def _handle_events(self, pause: float) -> None:
        try:
            event = self._events.get(timeout=pause)
            while True:
                try:
                    self._on(*event)
                except OSError as error:
                    logger.error("%s is not written down: %s: %s", event[0], error, event[1])
                event = self._events.get_nowait()
        except queue.Empty:
            pass

    def _on(self, name: str, payload: Any) -> None:
        if name == "connected":
            self.upstream.on_connected(payload)
        elif name == "broken":
            self.upstream.on_broken(payload)
            for delivery in self._deliveries.values():
                delivery.disconnected()
        elif name == "answer":
            self._heard_at = time.monotonic()
            self.upstream.on_answer()
            self._on_answer(payload)
        elif name == "uploaded":
            self._on_uploaded(*payload)
        elif name == "flush":
            self._waiters.append(payload)
            self._find_at = 0.0
        elif name == "reached":
            self.upstream.on_answer()
        elif name == "unreached" and self.upstream.carrier is None:
            self.upstream.note(payload)

    def _on_answer(self, frame: metrics_pb2.StreamMetricsResponse) -> None:
        kind = frame.WhichOneof("frame")
        if kind == "throttle":
            self._paused_until = time.monotonic() + frame.throttle.retry_after_ms / 1000
            return
        if kind is None:
            return
        message = getattr(frame, kind)
        delivery = self._deliveries.get(message.session_id)
        if delivery is None:
            return
        if kind == "opened":
            delivery.on_opened(message.next_sequence)
        elif kind == "ack":
            delivery.on_ack(message.next_sequence)
        elif message.field == "session_id":
            delivery.error = message.message
        elif message.field == "declarations":
            delivery.hold(message.message)
        else:
            delivery.on_refused(message)

    def _look_at_machine(self, now: float) -> None:
        if self._monitor is None or now < self._monitor_at:
            return
        self._monitor_at = now + MONITOR_EVERY
        try:
            self._monitor.look(list(self._deliveries.values()), now)
        except OSError as error:
            logger.warning("system metrics are not logged: %s", error)
            self._monitor_at = now + 10 * MONITOR_EVERY

    def _on_uploaded(self, upload: Upload, error: RunstreamError | None) -> None:
        delivery = self._deliveries.get(upload.session_id)
        if delivery is not None:
            delivery.on_uploaded(upload, error)

    def _find(self) -> None:
        """Take up the journals that nobody delivers yet."""
        for folder in self._only if self._only is not None else self._candidates():
            if folder.name in self._deliveries or folder.name in self._ignored:
                continue
            try:
                delivery = Delivery.take(folder)
            except FileNotFoundError:
                continue  # just finished by another sender
            except OSError as error:
                logger.warning("journal %s cannot be read: %s", folder.name, error)
                self._ignored.add(folder.name)
                continue
            if delivery is not None:
                self._deliveries[folder.name] = delivery

    def _candidates(self) -> list[Path]:
        found = []
        with os.scandir(self._folder.journals) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(".") or name in self._deliveries or name in self._ignored:
                    continue
                if self._ours(Path(entry.path)):
                    found.append(Path(entry.path))
                else:
                    self._ignored.add(name)
        return found

    def _ours(self, folder: Path) -> bool:
        meta = read_meta(folder)
        if meta is None or meta["format"] > FORMAT or (folder / DONE).exists():
            return False
        return not meta.get("offline") and meta.get("credentials") == self._folder.fingerprint

    def _work(self, delivery: Delivery, now: float) -> None:
        delivery.look(now)
        if delivery.wants_connection():
            if delivery.active():
                self._active_at = now
            carrier = self.upstream.carrier
            if carrier is None:
                self.upstream.connect()
            elif not delivery.asked:
                carrier.open(delivery.open_message())
            elif delivery.opened and now >= self._paused_until:
                self._send(delivery)
        for upload in delivery.next_uploads():
            self._uploader.submit(upload)
        delivery.end_vanished()
        delivery.trouble.tell(delivery.error or self.upstream.trouble)
        delivery.save(now, force=delivery.finished)
        if delivery.finished:
            self._finish(delivery)

    def _send(self, delivery: Delivery) -> None:
        carrier = self.upstream.carrier
        assert carrier is not None
        room = MAX_UNDER_WAY - sum(len(item.in_flight) for item in self._deliveries.values())
        for _ in range(min(room, carrier.window)):
            batch = delivery.next_batch(carrier.window, remembers=carrier.remembers)
            if batch is None:
                return
            carrier.batch(batch)

    def _finish(self, delivery: Delivery) -> None:
        if self.upstream.carrier is not None and delivery.opened:
            self.upstream.carrier.finish(delivery.session_id)
        logger.info("session %s is delivered: %d slots", delivery.session_id, delivery.acknowledged)
        del self._deliveries[delivery.session_id]
        self._ignored.add(delivery.session_id)
        self._answer_waiters(time.monotonic(), done=delivery)
        delivery.tidy()
        delivery.release()

    def _check_silence(self, now: float) -> None:
        """Give a connection up that owes an answer for too long: its other end may be gone without a word."""
        carrier = self.upstream.carrier
        owes = any(item.in_flight or (item.asked and not item.opened) for item in self._deliveries.values())
        if carrier is None or not owes:
            self._heard_at = now
        elif now - self._heard_at > SILENCE_SECONDS:
            carrier.end()
            self._on("broken", Unavailable(f"the server did not answer for {SILENCE_SECONDS:.0f} s"))

    def _heartbeats(self) -> None:
        carrier = self.upstream.carrier
        for delivery in self._deliveries.values():
            if carrier is not None and delivery.opened and not delivery.dead:
                carrier.heartbeat(delivery.session_id)

    def _idle_for(self) -> float:
        now = time.monotonic()
        # A journal that cannot be delivered at all, or not from here, waits for people, not for this process.
        stuck = self.upstream.hopeless or self.upstream.denied
        if (
            any(not (item.dead and (item.error or stuck)) for item in self._deliveries.values())
            or self._waiters
        ):
            self.idle_since = now
        return now - self.idle_since

    def _answer_waiters(self, now: float, done: Delivery | None = None) -> None:
        waiting = []
        for waiter in self._waiters:
            delivery = self._deliveries.get(waiter.session_id)
            if done is not None and waiter.session_id == done.session_id:
                delivery = done
            if self._is_over(waiter, delivery, now):
                waiter.answer.set_result(self._state(waiter, delivery))
            else:
                waiting.append(waiter)
        self._waiters = waiting

    def _is_over(self, waiter: Waiter, delivery: Delivery | None, now: float) -> bool:
        if now >= waiter.deadline:
            return True
        if delivery is not None:
            return delivery.acknowledged >= waiter.sequence or bool(delivery.error)
        if not waiter.session_id:
            return False
        folder = self._folder.journals / waiter.session_id
        return not folder.exists() or Ack.read(folder).sequence >= waiter.sequence

    def _state(self, waiter: Waiter, delivery: Delivery | None) -> SenderState:
        state = self._own_state()
        if not waiter.session_id:
            state.sessions.extend(session_state(item, 0) for item in self._deliveries.values())
        elif delivery is not None:
            state.sessions.append(session_state(delivery, waiter.sequence))
            if delivery.error:
                state.reachable, state.error = False, delivery.error
        elif (folder := self._folder.journals / waiter.session_id).exists() and not (folder / DONE).exists():
            # Somebody else delivers it: `runstream sync`, or another process's sender thread.
            state.sessions.add(
                session_id=waiter.session_id, written=waiter.sequence, acknowledged=Ack.read(folder).sequence
            )
        return state

    def _own_state(self) -> SenderState:
        upstream = self.upstream
        return SenderState(
            version=version(), pid=os.getpid(), reachable=upstream.reachable, error=upstream.error
        )
