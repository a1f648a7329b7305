"""The API document as one HTML page: no scripts, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
:root { color-scheme: light dark; }
summary { cursor: pointer; padding: .2rem 0; }
code, b { font-family: ui-monospace, monospace; font-size: 14px; }
b { display: inline-block; width: 4.5rem; }
table { border-collapse: collapse; margin: .3rem 0 .8rem 4.5rem; }
td, th { text-align: left; padding: .1rem 1rem .1rem 0; vertical-align: top; }
pre { white-space: pre-wrap; font: inherit; margin: .3rem 0 .3rem 4.5rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Headers of the page: nothing runs on it, and no style but its own."""


def page(document: dict[str, Any]) -> bytes:
    """Return the page of an API document."""
    info = document["info"]
    tags = [tag["name"] for tag in document["tags"]]
    links = "".join(f'<a href="#{tag}">{tag}</a>' for tag in [*tags, "types"])
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>',
        f"<style>{_STYLE}</style></head><body><h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f'<p>{escape(info["description"])} <a href="openapi.json">openapi.json</a></p><nav>{links}</nav>',
    ]
    for tag in tags:
        parts.append(f'<h2 id="{tag}">{tag}</h2>')
        parts += _operations(document["paths"], tag)
    parts.append('<h2 id="types">Types</h2>')
    for name, schema in document["components"]["schemas"].items():
        parts.append(f'<details id="type-{escape(name)}"><summary><code>{escape(name)}</code></summary>')
        parts.append(_text(schema.get("description")) + _table(schema["properties"].items()) + "</details>")
    return "".join([*parts, "</body></html>\n"]).encode()


def _operations(paths: dict[str, Any], tag: str) -> Iterator[str]:
    for path, verbs in paths.items():
        for verb, operation in verbs.items():
            if tag not in operation["tags"]:
                continue
            yield f"<details><summary><b>{verb.upper()}</b><code>{escape(path)}</code></summary>"
            yield _text(operation.get("description"))
            rows = [
                (each["name"], {**each["schema"], "description": each.get("description", "")})
                for each in operation.get("parameters", ())
            ]
            if body := operation.get("requestBody"):
                rows.append(("(body)", _json(body)))
            yield _table([*rows, ("(answer)", _json(operation["responses"]["200"]))]) + "</details>"


def _text(text: str | None) -> str:
    return f"<pre>{escape(text)}</pre>" if text else ""


def _json(holder: dict[str, Any]) -> Any:
    return holder["content"]["application/json"]["schema"]


def _table(rows: Any) -> str:
    lines = (
        f"<tr><td><code>{escape(name)}</code></td><td>{_type(schema)}</td>"
        f"<td>{escape(schema.get('description', ''))}</td></tr>"
        for name, schema in rows
    )
    return f"<table>{''.join(lines)}</table>"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#type-{name}">{name}</a>'
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map to {_type(schema['additionalProperties'])}"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(escape(each) for each in schema["enum"])
    return escape(schema.get("format") or schema.get("contentEncoding") or schema["type"])
