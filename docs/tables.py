"""Writes what README and docs repeat of the catalog, between markers: ``python -m docs.tables``, or ``make tables``.

A marker is ``<!-- table:NAME -->`` or ``<!-- table:NAME STEM -->``, closed by ``<!-- /table -->``. The dark pictures
are made here too: the light ones with the colours of ``DARK``.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path

from airflow_provider_airis.catalog import BY_STEM, SYSTEMS, System
from airflow_provider_airis.catalog.dags import about

ROOT = Path(__file__).resolve().parents[1]
MARKER = re.compile(r"(<!-- table:(\w+)(?: (\w+))? -->\n).*?(<!-- /table -->)", re.DOTALL)
FACETS = {"source": "source", "channel": "alerts", "webhook": "inbound webhooks", "export": "exports"}

# Light colours and what replaces them in the dark.
DARK = {
    "#ffffff": "#131416",
    "#f6f8fa": "#1d2127",
    "#eaf2fd": "#16263c",
    "#d0d7de": "#3d444d",
    "#1f2328": "#e6edf3",
    "#59636e": "#9aa4af",
    "#1f4fbf": "#8db4ff",
    "#b3431a": "#f0935f",
}


def pages() -> list[Path]:
    """README, changelog and every page."""
    docs = [page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts]
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(docs)]


def render(page: Path) -> str:
    """The page as it should be."""

    def fill(marker: re.Match[str]) -> str:
        opening, name, stem, closing = marker.groups()
        return f"{opening}\n{TABLES[name](page, stem).strip()}\n\n{closing}"

    return MARKER.sub(fill, page.read_text())


def darken(light: Path) -> str:
    """The dark twin of a picture."""
    return re.sub(r"#[0-9a-f]{6}\b", lambda colour: DARK[colour[0]], light.read_text())


def pictures() -> dict[Path, Path]:
    """Light picture to dark."""
    return {
        light: light.with_name(light.name.replace("-light", "-dark"))
        for light in sorted((ROOT / "docs/images").glob("*-light.svg"))
    }


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(header), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _link(page: Path, stem: str) -> str:
    return os.path.relpath(ROOT / f"docs/systems/{stem}.md", page.parent)


def _facets(system: System) -> str:
    return ", ".join(FACETS[facet] for facet in system.facets) or "the hub"


def systems(page: Path, _: str | None) -> str:
    """Every system, linked to its page."""
    return table(
        ("System", "What it is", "What it carries", "Tested against"),
        (
            (f"[{s.title}]({_link(page, s.stem)})", _facets(s), s.summary, s.tested_against)
            for s in sorted(SYSTEMS, key=lambda s: (bool(s.facets), not s.source))
        ),
    )


def connections(page: Path, _: str | None) -> str:
    """Which connection each system uses, and what brings its type."""
    return table(
        ("System", "Connection type", "Default connection", "Extra", "The type comes with"),
        (
            (
                f"[{s.title}]({_link(page, s.stem)})",
                f"`{s.connection.type}`",
                f"`{s.default_conn_id}`",
                f"`{s.stem}`" if s.requires else "none",
                ", ".join(re.split(r"[<>=]", wanted)[0] for wanted in s.requires)
                or ("this provider" if s.connection.form else "Apache Airflow"),
            )
            for s in SYSTEMS
        ),
    )


def fields(_: Path, stem: str | None) -> str:
    """The fields of a connection form that is ours."""
    form = BY_STEM[stem or ""].connection.form
    assert form, f"{stem} has no form of its own"
    where = {"host": "`host`", "password": "`password`", "login": "`login`"}
    standard = [(title, where[name], "", form.placeholders.get(name, "")) for name, title in form.relabeling.items()]
    return table(
        ("Field", "Stored in", "Default", "Meaning"),
        [
            *standard,
            *(
                (
                    field.title,
                    f"extra `{field.name}`",
                    "" if field.default is None else f"`{field.default}`",
                    field.description + (f" One of {', '.join(field.enum)}." if field.enum else ""),
                )
                for field in BY_STEM[stem or ""].form_fields
            ),
        ],
    )


def options(_: Path, stem: str | None) -> str:
    """The options of ``airflow.cfg``, of one system or of all, a section each."""
    parts = []
    for s in SYSTEMS if stem is None else [BY_STEM[stem]]:
        if not s.all_options:
            continue
        if stem is None:
            parts.append(f"## `[{s.section}]`: {s.title}")
        rows = (
            (
                f"`{o.name}`",
                o.type,
                f"`{o.default}`",
                o.description + (f" Example: `{o.example}`." if o.example else ""),
            )
            for o in s.all_options
        )
        parts.append(table(("Option", "Type", "Default", "Meaning"), rows))
    return "\n\n".join(parts)


def metrics(_: Path, stem: str | None) -> str:
    """The metrics of a system, a table for each place in which the source keeps them."""
    parts = []
    for place, specs in groupby(BY_STEM[stem or ""].metrics, key=lambda m: m.origin.partition(":")[0]):
        rows = (
            (f"`{m.name}`", f"`{m.origin.partition(':')[2]}`", m.unit, ", ".join(m.statistics), m.description)
            for m in specs
        )
        parts += [f"In `{place}`:", table(("Metric", "There", "Unit", "Statistics", "Meaning"), rows)]
    return "\n\n".join(parts)


def dimensions(_: Path, stem: str | None) -> str:
    """By what a system tells its series apart, and which metrics it keeps so."""
    by: dict[str, list[str]] = {}
    for metric in BY_STEM[stem or ""].metrics:
        for names in metric.dimensions:
            by.setdefault(names, []).append(f"`{metric.name}`")
    return table(("Dimensions", "Metrics"), ((f"`{names}`", ", ".join(metrics)) for names, metrics in by.items()))


def events(_: Path, stem: str | None) -> str:
    """The events of a system."""
    rows = [(f"`{event.event_type}`", event.description) for event in BY_STEM[stem or ""].events]
    return table(("Event", "Meaning"), rows) if rows else "None in this version."


def dags(_: Path, __: str | None) -> str:
    """The shipped Dags with what the row, or the file of a Dag of its own, says of them."""
    said = [about(system, kind) for system in SYSTEMS for kind in system.dags]
    rows = {one.dag_id: one.description for one in said}
    for path in (ROOT / "dags").glob("*.py"):
        # The files that are named after a kind make a Dag for each row.
        if path.stem.removeprefix("airis_") not in {kind for system in SYSTEMS for kind in system.dags}:
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            rows.setdefault(path.stem, " ".join(text.split("\n\n")[0].split()))
    return table(("Dag", "What it does"), ((f"`{dag_id}`", rows[dag_id]) for dag_id in sorted(rows)))


def limits(_: Path, __: str | None) -> str:
    """How long a task of each shipped Dag may take."""
    by: dict[str, list[str]] = {}
    for system in SYSTEMS:
        for kind in system.dags:
            said = about(system, kind)
            by.setdefault(f"{said.limit.total_seconds() / 60:g} minutes", []).append(f"`{said.dag_id}`")
    rows = sorted(by.items(), key=lambda row: float(row[0].split()[0]))
    return table(("A task may take", "In"), ((limit, ", ".join(dag_ids)) for limit, dag_ids in rows))


TABLES: dict[str, Callable[[Path, str | None], str]] = {
    "systems": systems,
    "connections": connections,
    "fields": fields,
    "options": options,
    "metrics": metrics,
    "dimensions": dimensions,
    "events": events,
    "dags": dags,
    "limits": limits,
}


def main() -> None:
    """Write every page whose tables have changed, and the dark pictures."""
    current = {page: render(page) for page in pages()} | {dark: darken(light) for light, dark in pictures().items()}
    for path, text in current.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
