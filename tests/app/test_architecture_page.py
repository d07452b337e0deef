"""
The pages about the architecture name the modules and functions that there are.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.python.reflect import namedAny

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "dcm_ws"
PACKAGES = "|".join(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
TRAVELS = (ROOT / "docs" / "how-an-event-travels.md").read_text()
NAMES = sorted(set(re.findall(rf"`((?:{PACKAGES})\.[A-Za-z_.]+)`", TRAVELS)))


def test_every_module_has_its_row() -> None:
    """
    The tables list each module once, and none that is gone.
    """
    modules = {
        path.relative_to(PACKAGE).with_suffix("").as_posix()
        for path in PACKAGE.rglob("*.py")
        if path.stem != "__init__"
    }
    page = (ROOT / "docs" / "architecture.md").read_text()
    tables = re.findall(r"^\| module \| its one job \|\n\|[- |]+\|\n((?:\|.*\n)+)", page, re.M)
    rows = [row.split("|")[1] for table in tables for row in table.splitlines()]
    listed = [name for row in rows for name in re.findall(r"`([a-z_/]+)`", row)]
    assert sorted(listed) == sorted(modules)


def test_places_for_new_code_exist() -> None:
    """
    CONTRIBUTING names no module or folder that is gone.
    """
    named = set(re.findall(rf"`((?:{PACKAGES})/[a-z_/]*)`", (ROOT / "CONTRIBUTING.md").read_text()))
    assert len(named) > 15
    assert [name for name in named if not (PACKAGE / name).is_dir() and not (PACKAGE / f"{name}.py").is_file()] == []


def test_picture_is_current() -> None:
    """
    The picture of the packages shows the imports that there are.
    """
    script = ROOT / "scripts" / "draw-architecture"
    drawn = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stdout + drawn.stderr


@pytest.mark.parametrize("name", NAMES)
def test_names_of_the_ways_exist(name: str) -> None:
    """
    The page about the ways through the code names nothing that is gone or renamed.
    """
    assert namedAny(f"dcm_ws.{name}")


def test_most_of_the_ways_are_names() -> None:
    """
    The pattern above finds the names: there are many, and one that does not exist is noticed.
    """
    assert len(NAMES) > 40
    with pytest.raises(AttributeError):
        namedAny("dcm_ws.core.router.Router.gone")
    with pytest.raises(AttributeError):
        namedAny("dcm_ws.core.gone")
