"""What ``python -m docs.cost`` counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_airis.catalog import SYSTEMS
from docs import cost


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree with a Teams of known size, which is named in a shared file beside the catalog's list."""
    for name, text in {
        "airflow_provider_airis/catalog/teams.py": "a\nb\nc\n",
        "airflow_provider_airis/catalog/__init__.py": "from catalog import (\n    teams,\n)\n\n    teams.ROW,\n",
        "airflow_provider_airis/hooks/teams.py": "1\n" * 20,
        "airflow_provider_airis/channels/teams.py": "1\n" * 30,
        "airflow_provider_airis/shared.py": 'if system == "teams":\n    TeamsHook()\nteamsters = 1\n# teams play\n',
        "sandbox/teams/__main__.py": "1\n" * 5,
        "sandbox/teams/web/page.html": "1\n" * 2,
        "sandbox/teams/__pycache__/page.pyc": "1\n" * 99,
        "tests/unit/test_teams.py": "1\n" * 7,
        "tests/integration/test_teams_live.py": "1\n" * 8,
        "tests/unit/test_steams.py": "1\n" * 99,
        "tests/fixtures/teams/typical/case.json": "1\n" * 11,
        "docs/systems/teams.md": "1\n" * 13,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(cost, "ROOT", tmp_path)
    return tmp_path


def test_each_place_is_counted_once_and_what_is_named_elsewhere(tree: Path) -> None:
    counted = cost.cost("teams")
    assert {place: number for place, number in counted.items() if number} == {
        "row": 3,
        "hook": 20,
        "channel": 30,
        "fake": 7,
        "fixtures": 11,
        "tests": 15,
        "page": 13,
        "elsewhere": 4,
    }


def test_the_table_has_a_row_a_system_with_its_sums(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cost.main(["teams"])
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "system"
    assert row.split() == ["teams", "3", "20", "30", "7", "11", "15", "13", "4", "53", "103"]


def test_every_system_of_the_tree_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    cost.main([])
    rows = [row.split() for row in capsys.readouterr().out.splitlines()[1:]]
    assert [row[0] for row in rows] == [system.stem for system in SYSTEMS if system.facets]
    assert all(int(row[-1]) > int(row[-2]) > 0 for row in rows)


def test_a_system_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cost.main(["team"])
    assert "no system is called team; there are airis, " in capsys.readouterr().err
