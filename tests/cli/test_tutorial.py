"""
The tutorial, as it stands in the docs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import clean
from tests.integration.running import free_port

pytestmark = pytest.mark.package

ROOT = Path(__file__).parents[2]
IGNORED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "node_modules", "tests", "data")


@pytest.fixture
def folder() -> Iterator[Path]:
    """
    An empty folder, in which another account may run PostgreSQL.
    """
    made = Path(tempfile.mkdtemp(prefix="dcm-ws-tutorial-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_the_tutorial(folder: Path) -> None:
    """
    Every command of it works, one after the other, in an empty folder.
    """
    source, place = folder / "source", folder / "empty"
    shutil.copytree(ROOT, source, ignore=IGNORED)
    place.mkdir()
    text = (ROOT / "docs" / "tutorial.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
    assert len(blocks) >= 8
    script = "set -eu\n" + "".join(blocks)
    # the package as it is here, and a port that is free
    port = free_port()
    assert script.count("'dcm-ws[embedded]'") == 1
    script = script.replace("'dcm-ws[embedded]'", f"'{source}[embedded]'").replace("3849", str(port))
    environment = clean(folder, DCM_WS_URL=f"ws://127.0.0.1:{port}/")
    # the file of the tutorial has these
    del environment["DCM_DATA_DIR"]
    environment.pop("VIRTUAL_ENV", None)
    with (folder / "output").open("w+") as output:
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=150)
        except subprocess.TimeoutExpired:
            status = -1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        said = (folder / "output").read_text()
        log = (place / "service.log").read_text() if (place / "service.log").exists() else ""
    assert status == 0, f"{said}\n{log}"
    for line in (
        "system.info         global",
        '{"text":"hello"}',
        "done: {'id': 'task-3', 'sum': 6}",
        "worked on task.created {'id': 'task-1', 'sum': 1}",
        "triggers, version 3: installed",
        '"event":"subtask.created"',
        "worked on subtask.created {'id': 'row-1', 'sum': 0}",
    ):
        assert line in said, f"{line}\n{said}"
