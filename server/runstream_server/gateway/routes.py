"""Finds the RPC behind an HTTP request, by the `google.api.http` bindings of the contract.

A binding `/api/2.0/mlflow/…` also answers at `/ajax-api/2.0`, `/api/3.0` and `/ajax-api/3.0`, as clients of
either spell it, and all below the static prefix. Paths without variables are found in one dict look-up; a
template's variables are matched before percent-decoding, so `%2F` in a tag key is no separator: `{name}` is
one segment, `{name=**}` all that follow.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from google.api import annotations_pb2  # type: ignore[import-untyped]
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

import runstream.v1

_VERBS = ("get", "put", "post", "delete", "patch")
_TWINS = re.compile(r"/(?:ajax-)?api/(\d+)\.0(/.*)")


@dataclass(frozen=True)
class Route:
    """One binding of one RPC."""

    verb: str
    """HTTP method, upper case."""
    path: str
    """Path or template without static prefix, e.g. `/api/2.0/mlflow/logged-models/{model_id}`."""
    method: MethodDescriptor
    """The RPC."""
    body: str
    """`*`: the body is the request; a field's name: it is that field; empty: query parameters are."""


@dataclass(frozen=True)
class Found:
    """What a request's method and path lead to."""

    route: Route | None
    """None when the path exists for other HTTP methods only."""
    variables: Mapping[str, str]
    """Path variables, decoded."""
    verbs: tuple[str, ...]
    """HTTP methods the path has."""


class RouteTable:
    """All routes of some services."""

    def __init__(self, services: Iterable[ServiceDescriptor], static_prefix: str = "") -> None:
        self.routes = sorted(bindings(services), key=lambda route: (route.path, route.verb))
        """Every route once, twins and prefix left out; the API document is made from these."""
        self._exact: dict[str, dict[str, Route]] = {}
        self._templates: list[tuple[re.Pattern[str], dict[str, Route]]] = []
        prefix = static_prefix.rstrip("/")
        templates: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            table = templates if "{" in route.path else self._exact
            for path in twins(route.path):
                _add(table.setdefault(prefix + path, {}), route)
        for path, verbs in templates.items():
            self._templates.append((_pattern(path), verbs))

    def find(self, verb: str, path: str, raw_path: str) -> Found | None:
        """Return where a request leads, None when the path has no route at all.

        `path` is percent-decoded, `raw_path` as it came. HEAD is answered as GET.
        """
        verb = "GET" if verb == "HEAD" else verb
        exact = self._exact.get(path, {})
        if route := exact.get(verb):
            return Found(route, {}, ())
        others = set(exact)
        for pattern, verbs in self._templates:
            if match := pattern.fullmatch(raw_path):
                variables = {name: unquote(value) for name, value in match.groupdict().items()}
                if route := verbs.get(verb):
                    return Found(route, variables, ())
                others |= set(verbs)
        return Found(None, {}, tuple(sorted(others))) if others else None


def services() -> list[ServiceDescriptor]:
    """Return every service of the contract, in order of file and name."""
    modules = sorted(info.name for info in pkgutil.iter_modules(runstream.v1.__path__))
    files = [importlib.import_module(f"runstream.v1.{name}") for name in modules if name.endswith("_pb2")]
    return [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]


def bindings(services: Iterable[ServiceDescriptor]) -> Iterator[Route]:
    """Yield a route for each http rule of each unary RPC, additional bindings included."""
    for service in services:
        for method in service.methods:
            rule = method.GetOptions().Extensions[annotations_pb2.http]  # pyright: ignore[reportArgumentType]
            for each in (rule, *rule.additional_bindings):
                verb = each.WhichOneof("pattern")
                if verb in _VERBS:
                    yield Route(verb.upper(), getattr(each, verb), method, each.body)


def twins(path: str) -> list[str]:
    """Return every spelling under which a bound path answers, the bound one first."""
    match = _TWINS.fullmatch(path)
    if not match:
        return [path]
    major, rest = match.groups()
    majors = [major] if major == "1" else ["2", "3"]
    spelled = [f"/{door}/{number}.0{rest}" for number in majors for door in ("api", "ajax-api")]
    return [path, *(other for other in spelled if other != path)]


def _add(verbs: dict[str, Route], route: Route) -> None:
    known = verbs.setdefault(route.verb, route)
    if known.method is not route.method:
        raise ValueError(
            f"{route.verb} {route.path} is bound to both {known.method.name} and {route.method.name}"
        )


def _pattern(template: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)(=\*\*)?\}", template)
    pattern = re.escape(pieces[0])
    for name, deep, rest in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        pattern += f"(?P<{name}>{'.+' if deep else '[^/]+'}){re.escape(rest)}"
    return re.compile(pattern)
