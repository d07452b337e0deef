"""
Pages of the documentation whose commands tests run as they are printed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.cli.running import clean
from tests.integration.machine import ROOT

#: s that all commands of a page may take, on a machine with much else to do
LONGEST = 480


@contextlib.contextmanager
def new_folder() -> Iterator[Path]:
    """
    A folder in which another account may run PostgreSQL, with an empty folder C{empty} in it.
    """
    made = Path(tempfile.mkdtemp(prefix="dcm-ws-tutorial-"))
    made.chmod(0o755)
    (made / "empty").mkdir()
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    """
    L{new_folder} of the test's own.
    """
    with new_folder() as made:
        yield made


def commands(page: str) -> list[str]:
    """
    The shell blocks of a page, as they are printed.
    """
    blocks: list[str] = re.findall(r"^```sh\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)
    return blocks


def outputs(page: str) -> list[str]:
    """
    The lines that a page shows as output, which are those that are indented.
    """
    prose = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.M | re.S)
    return re.findall(r"^    (\S.*)$", prose, re.M)


def matches(output: str) -> re.Pattern[str]:
    """
    What a line of output stands for: C{TIME} and C{PORT} for any, and C{…} for anything.
    """
    pattern = re.escape(output).replace("…", ".*").replace("TIME", r"[\d:.]+").replace("PORT", r"\d+")
    return re.compile(f"^{pattern}", re.M)


def unquoted(script: str) -> str:
    """
    What the shell reads as its own words: without documents, quotes and the names of variables.
    """
    script = re.sub(r"<<'(\w+)'.*?^\1$", "", script, flags=re.M | re.S)
    return re.sub(r"'[^']*'|\"(\\.|[^\"])*\"|\$\{[^}]*\}|\$\?", "", script)


def run_page(folder: Path, script: str, environment: Mapping[str, str]) -> tuple[int, str]:
    """
    Run C{script} in the empty folder; returns its exit status, -1 after L{LONGEST}, and what it printed.
    """
    with (folder / "output").open("w+") as output:
        process = subprocess.Popen(
            ["bash", "-c", "set -eu\n" + script],
            cwd=folder / "empty",
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            status = -1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        return status, (folder / "output").read_text()


def reader(folder: Path, **variables: str) -> dict[str, str]:
    """
    The environment of somebody who has installed nothing of ours.
    """
    environment = clean(folder)
    # the tutorial's own file has it
    del environment["DCM_DATA_DIR"]
    environment.pop("VIRTUAL_ENV", None)
    return environment | variables
