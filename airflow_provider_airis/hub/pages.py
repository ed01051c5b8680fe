"""The hub's pages, rendered on the server: ``/dashboard``, and ``/dashboard?alert=<id>`` that every notification links to."""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path
from typing import Any

import jinja2

from airflow_provider_airis.hub import format as fmt
from airflow_provider_airis.records import iso

_HERE = Path(__file__).parent
_STATIC = {
    path.relative_to(_HERE / "static").as_posix(): path.read_bytes()
    for path in sorted((_HERE / "static").rglob("*"))
    if path.suffix in (".css", ".js", ".svg")
}
_VERSIONS = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in _STATIC.items()}

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {
    "age": fmt.age,
    "clock": fmt.clock,
    "duration": fmt.duration,
    "iso": iso,
    "number": fmt.number,
}
# Addresses are relative, so that the pages work behind any path prefix.
_templates.globals["static"] = lambda name: f"dashboard/static/{name}?v={_VERSIONS[name]}"


def render(template: str, **values: Any) -> str:
    """A page as HTML, everything in it escaped."""
    return _templates.get_template(template).render(values)
