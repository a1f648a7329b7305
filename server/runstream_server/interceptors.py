"""What happens around every call, whichever door it came through: deadline, errors, a line in the log.

gRPC door   Doorkeeper.intercept_service   wraps each handler; errors become a google.rpc status
HTTP door   Server.invoke                  errors stay ServerError, the door writes them as JSON
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from runstream_server.access.caller import Caller, current, enter
from runstream_server.access.gate import Gate, present
from runstream_server.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    ServerError,
    Unauthenticated,
    Unavailable,
    codes_of,
    retry_after,
)

logger = logging.getLogger("runstream.calls")

DOMAIN = "runstream"
"""ErrorInfo.domain of all our errors."""
_STATUS_KEY = "grpc-status-details-bin"
# Trailers above 8 KiB are dropped by clients, and the message goes over the wire up to three times, escaped.
_MAX_MESSAGE_BYTES = 1024
_MAX_DESCRIPTION_BYTES = 256


def seen_by_caller(error: Exception, method: str) -> ServerError:
    """Return the error a caller may see; what we did not foresee goes to the log with its stack."""
    if isinstance(error, ServerError):
        return error
    logger.error("%s failed", method, exc_info=error)
    return Internal("internal error; the server's log has the details")


async def in_time(work: Awaitable[Any], seconds: float, method: str) -> Any:
    """Return what `work` returns. Raises: DeadlineExceeded after `seconds`; what `work` raises."""
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            return await work
    except TimeoutError:
        if not deadline.expired():
            raise
        raise DeadlineExceeded(f"{method} took longer than {seconds:.3g} seconds") from None


def parse(read: Callable[[bytes], Message], data: bytes, method: str) -> Message:
    """Return the message in `data`. Raises: InvalidArgument when it is none of the method's request type."""
    try:
        return read(data)
    except DecodeError:
        raise InvalidArgument(f"the request is not a valid message of {method}") from None


async def parse_each(
    read: Callable[[bytes], Message], stream: AsyncIterator[bytes], method: str
) -> AsyncIterator[Message]:
    """Yield the messages of a stream. Raises: InvalidArgument at the first that is none."""
    async for data in stream:
        yield parse(read, data, method)


def status_of(error: ServerError) -> status_pb2.Status:
    """Return an error as google.rpc.Status with ErrorInfo, and BadRequest and RetryInfo where they apply."""
    status = status_pb2.Status(
        code=codes_of(type(error)).grpc.value[0], message=_cut(error.message, _MAX_MESSAGE_BYTES)
    )
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    if error.field:
        info.metadata["field"] = _cut(error.field, _MAX_DESCRIPTION_BYTES)
    status.details.add().Pack(info)
    if error.field and isinstance(error, InvalidArgument):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=info.metadata["field"], description=_cut(error.message, _MAX_DESCRIPTION_BYTES)
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if (seconds := retry_after(error)) is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(seconds * 1e9))
        status.details.add().Pack(retry)
    return status


def _cut(text: str, limit: int) -> str:
    data = text.encode()
    return text if len(data) <= limit else data[: limit - 3].decode(errors="ignore") + "…"


class Doorkeeper(grpc.aio.ServerInterceptor):
    """Wraps every handler of ours; health and reflection pass as they are."""

    def __init__(self, call_timeout: float, gate: Gate | None = None) -> None:
        """call_timeout: seconds for unary calls that bring no deadline; gate: who may call what."""
        self._call_timeout = call_timeout
        self._gate = gate
        self.draining = False
        """Set to answer new calls with UNAVAILABLE, which clients take to another server or time."""
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler of a call, wrapped."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None or not method.startswith("/runstream."):
                return handler if handler is None else self._foreign(handler, method)
            self._wrapped[method] = self._wrap(handler, method)
        return self._wrapped[method]

    def _wrap(self, handler: grpc.RpcMethodHandler[Any, Any], method: str) -> grpc.RpcMethodHandler[Any, Any]:
        write = handler.response_serializer
        # Messages are read here, so that garbage is the caller's error, neither ours nor the end of a stream.
        if handler.unary_unary:
            unary = self._unary(handler.unary_unary, handler.request_deserializer, method)
            return grpc.unary_unary_rpc_method_handler(unary, None, write)
        read = handler.request_deserializer
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(handler.unary_stream, method, read), None, write
            )
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(
                self._collect(handler.stream_unary, method, read), None, write
            )
        streams = self._stream(handler.stream_stream, method, read, many=True)
        return grpc.stream_stream_rpc_method_handler(streams, None, write)

    def _foreign(
        self, handler: grpc.RpcMethodHandler[Any, Any], method: str
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Return the handler of a service not ours: health for everybody, the rest with credentials."""
        if self._gate is None or method.startswith("/grpc.health."):
            return handler
        assert handler.stream_stream, f"{method} is of a kind that is not wrapped"
        inner: Any = handler.stream_stream
        gate = self._gate

        async def stream(requests: Any, context: Any) -> AsyncIterator[Any]:
            try:
                await self._enter(context, method)
                async with gate.watching(present(current())):
                    async for response in inner(requests, context):
                        yield response
            except Exception as error:
                await _abort(context, error, method)

        return grpc.stream_stream_rpc_method_handler(
            stream, handler.request_deserializer, handler.response_serializer
        )

    async def _enter(self, context: Any, method: str) -> None:
        """Find out who calls. Raises: Unauthenticated; Exhausted; Unavailable."""
        if self._gate is None:
            return
        source = _source(context.peer())
        if self._gate.is_public(method):
            enter(Caller(None, source))
            return
        values = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
        if len(values) > 1:
            raise Unauthenticated("send the metadata key authorization once")
        enter(await self._gate.enter(str(values[0]) if values else "", source))

    def _check(self) -> None:
        if self.draining:
            raise Unavailable("the server is shutting down; reconnect")

    def _unary(self, call: Any, read: Any, method: str) -> Any:
        async def unary(data: bytes, context: Any) -> Any:
            start = time.perf_counter()
            try:
                self._check()
                left = context.time_remaining()
                seconds = self._call_timeout if left is None else left
                if self._gate is None:
                    return await in_time(call(parse(read, data, method), context), seconds, method)
                await self._enter(context, method)
                request = parse(read, data, method)
                work = self._gate.run(method, request, lambda: call(request, context))
                return await in_time(work, seconds, method)
            except Exception as error:
                await _abort(context, error, method)
            finally:
                logger.debug("%s %.1f ms", method, 1e3 * (time.perf_counter() - start))

        return unary

    def _collect(self, call: Any, method: str, read: Any) -> Any:
        async def collect(data: Any, context: Any) -> Any:
            try:
                self._check()
                requests = parse_each(read, data, method)
                if self._gate is None:
                    return await call(requests, context)
                await self._enter(context, method)
                async with self._gate.streaming(method, requests, single=False) as checked:
                    return await call(checked, context)
            except Exception as error:
                await _abort(context, error, method)

        return collect

    def _stream(self, call: Any, method: str, read: Any, *, many: bool = False) -> Any:
        """Return a handler around `call`. read: of its request, or of each when it takes `many`."""

        async def stream(data: Any, context: Any) -> AsyncIterator[Any]:
            logger.debug("%s begins", method)
            try:
                self._check()
                await self._enter(context, method)
                request = parse_each(read, data, method) if many else parse(read, data, method)
                async with self._streaming(method, request, single=not many) as checked:
                    responses = call(checked, context)
                    if inspect.isawaitable(responses):
                        await responses
                        return
                    async for response in responses:
                        yield response
            except Exception as error:
                await _abort(context, error, method)
            finally:
                logger.debug("%s ends", method)

        return stream

    def _streaming(self, method: str, request: Any, *, single: bool) -> AbstractAsyncContextManager[Any]:
        if self._gate is None:
            return nullcontext(request)
        return self._gate.streaming(method, request, single=single)


def _source(peer: str) -> str:
    """Return the address of gRPC's `ipv4:1.2.3.4:5`, `ipv6:[::1]:5` or `unix:`, without port."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""


async def _abort(context: Any, error: Exception, method: str) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    known = seen_by_caller(error, method)
    status = status_of(known)
    context.set_trailing_metadata(((_STATUS_KEY, status.SerializeToString()),))
    await context.abort(codes_of(type(known)).grpc, status.message)
