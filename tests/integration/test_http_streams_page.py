"""
The commands of docs/http-streams.md do what the page says.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.running import service

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[2] / "docs" / "http-streams.md").read_text()
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
SECONDS = 60


def pattern_of(shown: str) -> str:
    """
    What matches the output that a page shows; an ellipsis stands for anything in its line.
    """
    return r"\s+".join(re.escape(line).replace("…", ".*?") for line in shown.split("\n") if line)


def test_commands() -> None:
    """
    Run in order against one service, each block prints what is below it.
    """
    blocks = CONSOLE.findall(PAGE)
    assert len(blocks) >= 8
    program = Path(sys.executable).with_name("dcm-ws")
    with service("--heartbeat-interval", "1") as running:
        for block in blocks:
            commands = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
            shown = "\n".join(line for line in block.splitlines() if not line.startswith("$ "))
            script = "\n".join(commands).replace("localhost:3849", f"127.0.0.1:{running.port}")
            script = script.replace("dcm-ws publish", f"{program} publish --url ws://127.0.0.1:{running.port}/ ")
            # what publishes prints an id, which the page leaves out
            script = re.sub(r"(publish [^\n)]*)", r"\1 > /dev/null", script)
            done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=SECONDS, check=False)
            # curl says 28 if its time is up
            assert done.returncode in (0, 28), done.stderr
            printed = done.stdout.replace("\r", "")
            assert re.match(pattern_of(shown), printed) if shown else printed == "", (block, printed)
