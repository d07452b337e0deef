"""
A test that hangs fails within the time limit, and the run goes on; one that ends its process fails, and the run ends.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]

HANGING = """
import subprocess
import sys
import time
from twisted.internet.defer import Deferred

def test_reads_a_line_that_never_comes():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, stdout=-1) as silent:
        silent.stdout.readline()

async def test_awaits_what_never_happens():
    await Deferred()

async def test_blocks_the_reactor():
    time.sleep(60)

def test_works_afterwards():
    pass

async def test_works_afterwards_too():
    pass
"""

DYING = """
import os
import signal

def test_works():
    pass

def test_dies():
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """
    Run the tests in a folder with the project's settings.
    """
    settings = ["-c", str(ROOT / "setup.cfg"), "--rootdir", str(folder), "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *settings, *options, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("parallel", [(), ("-n", "1", "--dist", "loadfile")], ids=["alone", "parallel"])
def test_hanging_tests_fail(tmp_path: Path, parallel: tuple[str, ...]) -> None:
    """
    A hanging test fails with a traceback of the line at which it hangs, whether it blocks in a system call, waits for a
    Deferred or never returns to the reactor.  Tests after it run as usual.
    """
    (tmp_path / "test_hanging.py").write_text(HANGING)
    run = run_pytest(tmp_path, "-o", "timeout=4", "-p", "tests.conftest", *parallel)
    assert run.returncode == 1, run.stdout + run.stderr
    assert re.search(r"=+ 3 failed, 2 passed in", run.stdout), run.stdout
    assert re.findall(r"^FAILED .*::(\w+)", run.stdout, re.M) == [
        "test_reads_a_line_that_never_comes",
        "test_awaits_what_never_happens",
        "test_blocks_the_reactor",
    ]
    for line in "silent.stdout.readline()", "await Deferred()", "time.sleep(60)":
        assert line in run.stdout


def test_dying_process(tmp_path: Path) -> None:
    """
    If a test ends its process, such as by an illegal instruction, it fails, and the run does not stand still.
    """
    (tmp_path / "test_dying.py").write_text(DYING)
    (tmp_path / "test_later.py").write_text("def test_later():\n    pass\n")
    run = run_pytest(tmp_path, "-n", "1", "--dist", "loadfile")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "crashed while running 'test_dying.py::test_dies'" in run.stdout
