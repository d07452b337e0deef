"""
The example of the documentation.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import PROGRAM, clean
from tests.integration.running import Service

pytestmark = pytest.mark.integration

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "mcp_agents.py"


def test_agents_share_work(tmp_path: Path, running: Service) -> None:
    """
    Each task is done by one of the two workers, and the agent that published them learns of all results.
    """
    url = f"ws://127.0.0.1:{running.port}/"
    path = f"{Path(PROGRAM).parent}:/usr/bin:/bin"
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), url],
        cwd=tmp_path,
        env=clean(tmp_path, PATH=path),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sorted(line for line in lines if line.startswith("lead: ")) == [
        f"lead: square-{number} is {number**2}" for number in (2, 3, 4, 5)
    ]
    taken = [line.partition(": I take ")[2] for line in lines if "I take" in line]
    assert sorted(taken) == [f"square-{number}" for number in (2, 3, 4, 5)]
