"""
docs/http.md: its C{curl} lines do what the page says.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.running import Service, service
from tests.integration.tokens import DEVELOPMENT_SECRET, make_token

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "http.md"
FREE = {"id", "client_id", "timestamp", "pos", "since", "oldest", "published_at"}
"""
Fields whose values are different each time.
"""


def examples() -> list[tuple[str, str]]:
    """
    Each C{curl} line of the page, with the answer below it, if the page shows one.
    """
    lines = [line[4:] for line in PAGE.read_text().splitlines() if line.startswith("    ")]
    found = []
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("curl "):
            found.append((line, below if below.startswith(("{", "[")) else ""))
    return found


def shape(value: Any) -> Any:
    """
    A JSON value without what is different each time.
    """
    if isinstance(value, list):
        return [shape(one) for one in value]
    if isinstance(value, dict):
        return {name: type(one).__name__ if name in FREE else shape(one) for name, one in value.items()}
    return value


def run(running: Service, line: str) -> str:
    """
    What the shell prints for a line of the page.
    """
    command = re.sub(r"localhost:3849", f"127.0.0.1:{running.port}", line).replace("curl ", "curl -sS ", 1)
    done = subprocess.run(
        ["sh", "-c", command],
        env=os.environ | {"TOKEN": make_token("deploy", secret=DEVELOPMENT_SECRET)},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return done.stdout


def test_examples() -> None:
    """
    Each example answers what the page shows.
    """
    found = examples()
    assert len(found) >= 6
    with service() as running:
        for line, shown in found:
            printed = run(running, line)
            if shown:
                assert shape(json.loads(printed)) == shape(json.loads(shown)), line
