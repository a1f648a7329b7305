"""Stands before everything that the HTTP port answers: whom it is asked by, and what browsers may do with it.

    request ──Host──> ──Origin, where something changes──> HttpDoor ──> secure headers ──> answer
                └─ 403 ──────────┴─ 403, and a log line with the setting that would allow it

Browsers get answers of other origins only when cors_allowed_origins names them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from runstream_server.config import Settings
from runstream_server.gateway.rest import Answer, refused
from runstream_server.gateway.sites import Sites

logger = logging.getLogger("runstream.gateway")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

ABSOLUTE_FORM = "absolute_form"
"""Key of the scope's state: the request's target was a whole URL, whose host counts for nothing here."""
_READS = ("GET", "HEAD", "OPTIONS")
_SHOWN = 100
_SECURE: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]
"""What every answer carries that does not say otherwise."""
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Connect-Timeout-Ms, Content-Type, Range",
    "Access-Control-Max-Age": "600",
}
_EXPOSED = b"Content-Disposition, Content-Range, ETag, Retry-After"


class Guard:
    """ASGI application around the one that answers."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], settings: Settings) -> None:
        self._app = app
        self._sites = Sites(settings.host, settings.allowed_hosts, settings.cors_allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it before its body is read."""
        if scope["type"] != "http":
            return
        origins = _values(scope, b"origin")
        shared = len(origins) == 1 and self._sites.shares_with(origins[0])
        secure = _Secured(send, origins[0] if shared else None)
        if refusal := self._refusal(scope, origins):
            await secure.answer(refusal)
        elif shared and scope["method"] == "OPTIONS" and _values(scope, b"access-control-request-method"):
            await secure.answer(Answer(204, b"", dict(_PREFLIGHT)))
        else:
            await self._app(scope, receive, secure)

    def _refusal(self, scope: Scope, origins: list[str]) -> Answer | None:
        hosts = _values(scope, b"host")
        host = None if scope.get("state", {}).get(ABSOLUTE_FORM) else self._sites.host(hosts)
        if host is None:
            named = ", ".join(hosts)[:_SHOWN]
            logger.warning(
                "refused a request for host %r; if clients call this server so, start it with "
                "--allowed-hosts=NAME or RUNSTREAM_ALLOWED_HOSTS=NAME",
                named,
            )
            return _forbidden(
                "The Host of this request is none of this server's names; whoever runs it can add one with "
                "--allowed-hosts."
            )
        fetch_site = next(iter(_values(scope, b"sec-fetch-site")), "")
        if scope["method"] in _READS or self._sites.may_change(host, origins, fetch_site):
            return None
        logger.warning(
            "refused a %s from a page of %r; if it may change things here, start the server with "
            "--cors-allowed-origins=ORIGIN; behind a proxy, let that pass the Host header on",
            scope["method"],
            ", ".join(origins)[:_SHOWN] or fetch_site[:_SHOWN],
        )
        return _forbidden(
            "Pages of other sites may not change anything here; whoever runs this server can allow one with "
            "--cors-allowed-origins."
        )


class _Secured:
    """A send that adds what every answer carries."""

    def __init__(self, send: Send, shared_with: str | None) -> None:
        self._send = send
        self._shared_with = shared_with

    async def __call__(self, event: MutableMapping[str, Any]) -> None:
        if event["type"] == "http.response.start":
            headers: Headers = list(event["headers"])
            names = {name for name, _ in headers}
            headers += [pair for pair in _SECURE if pair[0] not in names]
            if self._shared_with is not None:
                headers += [
                    (b"access-control-allow-origin", self._shared_with.encode("latin-1")),
                    (b"access-control-expose-headers", _EXPOSED),
                    (b"vary", b"Origin"),
                ]
            event = {**event, "headers": headers}
        await self._send(event)

    async def answer(self, answer: Answer) -> None:
        """Send a whole answer."""
        named = {**answer.headers, "Content-Length": str(len(answer.body))}
        if answer.status == 204:
            del named["Content-Length"]
        headers = [(name.lower().encode(), value.encode()) for name, value in named.items()]
        await self({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self({"type": "http.response.body", "body": answer.body})


def _forbidden(message: str) -> Answer:
    answer = refused(403, "PERMISSION_DENIED", message)
    answer.headers["Connection"] = "close"  # its body is not read
    return answer


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in scope["headers"] if key == name]
