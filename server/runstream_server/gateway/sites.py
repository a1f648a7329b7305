"""Which hosts the HTTP port is called by, and which pages of browsers may change something.

A page of another site reaches a server on loopback or in a private network in two ways: it sends requests
that browsers send without asking (Origin tells), and it gives its own name our address (Host tells). Both
headers are parsed here, never matched as text: `10.evil.com` is a name, `10.0.0.1` an address, and only the
latter is what nobody else can own.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_NUMERIC = re.compile(r"(?:.*\.)?(?:\d+|0x[0-9a-f]*)")
"""What browsers read as an IPv4 address, in whichever spelling."""
_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^\[\]:@/?#\\\s]+)(?::(?P<port>\d{0,5}))?")
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]+)", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LONGEST = 260


@dataclass(frozen=True)
class Authority:
    """HOST[:PORT], parsed."""

    host: str
    """Lower-case name, or an address in its canonical spelling without brackets."""
    is_address: bool
    port: int | None


@dataclass(frozen=True)
class Origin:
    """SCHEME://HOST:PORT, parsed."""

    scheme: str
    host: str
    port: int
    """That of the scheme when none is said."""


def parse_authority(text: str) -> Authority | None:
    """Return HOST[:PORT] parsed, None when it is no host of HTTP; a last dot of a name counts for nothing."""
    match = _AUTHORITY.fullmatch(text.lower()) if len(text) <= _LONGEST and text.isascii() else None
    port = int(match["port"]) if match and match["port"] else None
    if not match or (port or 0) > 65535:
        return None
    host = match["host"]
    brackets = host.startswith("[")
    if brackets or _NUMERIC.fullmatch(host):
        read = ipaddress.IPv6Address if brackets else ipaddress.IPv4Address
        try:
            return Authority(str(read(host.strip("[]"))), True, port)
        except ValueError:
            return None
    name = host.removesuffix(".")
    return Authority(name, False, port) if _NAME.fullmatch(name) else None


def parse_origin(text: str) -> Origin | None:
    """Return an Origin header parsed, None for `null` and what is no page of HTTP."""
    match = _ORIGIN.fullmatch(text)
    authority = parse_authority(match["authority"]) if match else None
    if not match or not authority:
        return None
    scheme = match["scheme"].lower()
    port = _DEFAULT_PORTS[scheme] if authority.port is None else authority.port
    return Origin(scheme, authority.host, port)


@dataclass(frozen=True)
class _Allowed:
    """One entry of allowed_hosts."""

    name: str
    """Empty: any."""
    below: bool
    """Names that end with `.name`, not the name itself."""
    port: int | None
    """None: any."""

    def fits(self, asked: Authority) -> bool:
        """Return whether the entry allows a host."""
        if self.port is not None and asked.port not in (None, self.port):
            return False
        if self.below:
            return asked.host.endswith(f".{self.name}") and not asked.is_address
        return self.name in ("", asked.host)


def parse_allowed(entry: str) -> _Allowed:
    """Return an entry of allowed_hosts parsed. Raises: ValueError saying what it should be."""
    if entry == "*":
        return _Allowed("", False, None)
    below = entry.startswith("*.")
    parsed = parse_authority(entry.removeprefix("*."))
    if parsed is None or (below and parsed.is_address):
        raise ValueError(f"{entry!r} is no host; write ml.example.com, ml.example.com:5000 or *.example.com")
    return _Allowed(parsed.host, below, parsed.port)


def parse_cors(entry: str) -> Origin:
    """Return an entry of cors_allowed_origins parsed. Raises: ValueError saying what it should be."""
    parsed = parse_origin(entry.removesuffix("/"))
    if parsed is None:
        raise ValueError(f"{entry!r} is no origin; write https://ui.example.com or http://localhost:3000")
    return parsed


class Sites:
    """The rules of one server."""

    def __init__(self, bind_host: str, allowed_hosts: Iterable[str] = (), cors: Iterable[str] = ()) -> None:
        """bind_host: what the server listens on. Raises: ValueError for an entry that cannot be read."""
        own = [parse_authority(name) for name in ("localhost", bind_host, socket.gethostname())]
        self._allowed = [_Allowed(each.host, False, None) for each in own if each]
        self._allowed += [parse_allowed(entry) for entry in allowed_hosts]
        self._cors = frozenset(parse_cors(entry) for entry in cors)
        self._known = lru_cache(256)(self._find)

    def host(self, values: Sequence[str]) -> Authority | None:
        """Return the host that a request's Host headers name, None when it is none of ours."""
        return self._known(values[0]) if len(values) == 1 else None

    def _find(self, value: str) -> Authority | None:
        asked = parse_authority(value)
        if asked is None:
            return None
        return asked if asked.is_address or any(entry.fits(asked) for entry in self._allowed) else None

    def shares_with(self, origin: str) -> bool:
        """Return whether pages of an origin may read our answers: it is in cors_allowed_origins."""
        return bool(self._cors) and parse_origin(origin) in self._cors

    def may_change(self, host: Authority, origins: Sequence[str], fetch_site: str) -> bool:
        """Return whether a request that changes something comes from no page, our own, or one allowed.

        origins: Origin headers; fetch_site: Sec-Fetch-Site, which says so where a browser leaves Origin out.
        """
        if not origins:
            return fetch_site in ("", "none", "same-origin")
        page = parse_origin(origins[0]) if len(origins) == 1 else None
        if page is None:
            return False
        port = _DEFAULT_PORTS[page.scheme] if host.port is None else host.port
        return (page.host, page.port) == (host.host, port) or page in self._cors
