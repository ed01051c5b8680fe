"""What a system costs in lines, by place, counted in the tree: ``python -m docs.cost [STEM …]``.

``elsewhere`` are lines of shared code that name the system. The catalog's list must; nothing else should.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from airflow_provider_airis.catalog import BY_STEM, SYSTEMS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "airflow_provider_airis"
IN_PACKAGE = ("row", "hook", "operator", "channel", "webhook", "export")
# Column → where its files are, {} being the stem. A folder is counted whole.
PLACES = {
    "row": (f"{PACKAGE}/catalog/{{}}.py",),
    "hook": (f"{PACKAGE}/hooks/{{}}.py", f"{PACKAGE}/hooks/{{}}"),
    "operator": (f"{PACKAGE}/operators/{{}}.py", f"{PACKAGE}/operators/{{}}"),
    "channel": (f"{PACKAGE}/channels/{{}}.py",),
    "webhook": (f"{PACKAGE}/webhooks/{{}}.py", f"{PACKAGE}/receive/{{}}.py"),
    "export": (f"{PACKAGE}/exports/{{}}.py",),
    "dags": ("dags/airis_*_{}.py",),
    "fake": ("sandbox/{}.py", "sandbox/{}", "sandbox/fakes/{}.py"),
    "fixtures": ("tests/fixtures/{}",),
    "tests": ("tests/*/test_{}.py", "tests/*/test_{}_*.py"),
    "page": ("docs/systems/{}.md",),
}
SHARED = (PACKAGE, "dags", "sandbox", "tests/contract", "docs")


def cost(stem: str) -> dict[str, int]:
    """Lines of a system by place.

    :raises KeyError: no row has this stem.
    """
    prefix = BY_STEM[stem].prefix
    found = {place: [*_files(place, stem)] for place in PLACES}
    own = {path for paths in found.values() for path in paths}
    # In quotes or as part of a path or an id, in the catalog's list, in a class's name.
    names = re.compile(rf"[\"'./_]{stem}(?=[\"'./_`])|^\s+{stem}(\.ROW)?,$|\b{prefix}(?=[A-Z])", re.MULTILINE)
    shared = [path for folder in SHARED for path in _inside(ROOT / folder) if path.suffix == ".py" and path not in own]
    elsewhere = sum(bool(names.search(line)) for path in shared for line in path.read_text().splitlines())
    return {place: sum(map(_lines, paths)) for place, paths in found.items()} | {"elsewhere": elsewhere}


def _files(place: str, stem: str) -> Iterator[Path]:
    for pattern in PLACES[place]:
        for path in sorted(ROOT.glob(pattern.format(stem))):
            yield from _inside(path)


def _inside(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for file in sorted(path.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def table(stems: Sequence[str]) -> str:
    """The figures, a system a row."""
    header = ("system", *PLACES, "elsewhere", "in the package", "all")
    rows = [header]
    for stem in stems:
        counted = cost(stem)
        package = sum(counted[place] for place in IN_PACKAGE)
        rows.append((stem, *(str(number or "") for number in (*counted.values(), package, sum(counted.values())))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    adjust: list[Callable[[str, int], str]] = [str.ljust, *[str.rjust] * (len(header) - 1)]
    return "\n".join(
        "  ".join(fit(cell, width) for fit, cell, width in zip(adjust, row, widths, strict=True)).rstrip()
        for row in rows
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m docs.cost", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("stems", nargs="*", metavar="STEM", help="systems to count; all of them if none is named")
    wanted = parser.parse_args(arguments).stems
    if unknown := [stem for stem in wanted if stem not in BY_STEM]:
        parser.error(f"no system is called {', '.join(unknown)}; there are {', '.join(BY_STEM)}")
    print(table(wanted or [system.stem for system in SYSTEMS if system.facets]))


if __name__ == "__main__":
    main()
