"""
Where the version is written.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dcm_ws.version import VERSION

ROOT = Path(__file__).parent.parent.parent


def test_npm_package() -> None:
    """
    The JavaScript client has the version of the service that it came with.
    """
    assert json.loads((ROOT / "dcm_ws/web/package.json").read_text())["version"] == VERSION


def test_changelog() -> None:
    """
    The newest release in the changelog is this one, and has a date.
    """
    released = re.findall(r"^## \[(\d\S*)\] - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0][0] == VERSION


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("contrib/Dockerfile", f'image.version="{VERSION}"'),
        ("contrib/kubernetes/init-db.yaml", f"/dcm-ws:{VERSION}\n"),
        ("contrib/kubernetes/nodes.yaml", f"/dcm-ws:{VERSION}\n"),
        ("docs/protocol.md", f"between dcm-ws {VERSION} and its clients"),
        ("docs/protocol.md", f'"server":"dcm-ws/{VERSION}"'),
        ("docs/example-session.md", f'"server":"dcm-ws/{VERSION}"'),
    ],
)
def test_other_places(file: str, text: str) -> None:
    """
    It is the same everywhere.
    """
    assert text in (ROOT / file).read_text()
