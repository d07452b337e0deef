"""
The page on the architecture names the modules that there are.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_module_has_its_row() -> None:
    """
    The tables list each module of the service and of the clients once, and none that is gone.
    """
    package = ROOT / "dcm_ws"
    modules = {
        path.relative_to(package).with_suffix("").as_posix()
        for path in package.rglob("*.py")
        if path.stem != "__init__"
    }
    page = (ROOT / "docs" / "architecture.md").read_text()
    tables = re.findall(r"^\| module \| its one job \|\n\|[- |]+\|\n((?:\|.*\n)+)", page, re.M)
    rows = [row.split("|")[1] for table in tables for row in table.splitlines()]
    listed = [name for row in rows for name in re.findall(r"`([a-z_/]+)`", row)]
    assert sorted(listed) == sorted(modules)
