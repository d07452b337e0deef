"""
A test that hangs fails within the time limit, and the run goes on.
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


@pytest.mark.parametrize("parallel", [(), ("-n", "1", "--dist", "loadfile")], ids=["alone", "parallel"])
def test_hanging_tests_fail(tmp_path: Path, parallel: tuple[str, ...]) -> None:
    """
    A hanging test fails with a traceback of the line at which it hangs, whether it blocks in a system call, waits for a
    Deferred or never returns to the reactor.  Tests after it run as usual.
    """
    (tmp_path / "test_hanging.py").write_text(HANGING)
    options = ["-c", str(ROOT / "setup.cfg"), "--rootdir", str(tmp_path), "-o", "timeout=4", "-p", "tests.conftest"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-p", "no:cacheprovider", *parallel, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert re.search(r"=+ 3 failed, 2 passed in", run.stdout), run.stdout
    assert re.findall(r"^FAILED .*::(\w+)", run.stdout, re.M) == [
        "test_reads_a_line_that_never_comes",
        "test_awaits_what_never_happens",
        "test_blocks_the_reactor",
    ]
    for line in "silent.stdout.readline()", "await Deferred()", "time.sleep(60)":
        assert line in run.stdout
