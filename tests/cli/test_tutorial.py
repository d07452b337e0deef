"""
The tutorial and the first page, run as they are printed, from an empty folder.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.pages import LONGEST, commands, matches, new_folder, outputs, reader, run_page, unquoted
from tests.integration.machine import ROOT, free_port

PLACEHOLDER = "REPOSITORY-URL"

pytestmark = [pytest.mark.package, pytest.mark.timeout(2 * LONGEST + 60)]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """
    Where the tutorial is followed.
    """
    with new_folder() as made:
        yield made


@pytest.fixture(scope="module")
def another_folder() -> Iterator[Path]:
    """
    Where the first page is followed.
    """
    with new_folder() as made:
        yield made


def git(repository: Path, *arguments: str) -> None:
    name = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "core.excludesFile=")
    subprocess.run(["git", *name, *arguments], cwd=repository, check=True)


@pytest.fixture(scope="module")
def repository(folder: Path) -> Path:
    """
    A repository with the project as it is here, committed or not.
    """
    made = folder / "repository"
    made.mkdir()
    listing = ["git", "-c", "core.excludesFile=", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, made / name)
    git(made, "init", "--quiet")
    git(made, "add", "--all", "--force")
    git(made, "commit", "--quiet", "--message", "as it is")
    return made


@pytest.fixture(scope="module")
def tutorial(folder: Path, repository: Path) -> list[str]:
    """
    The commands of the tutorial.  The installation, which is the first block, has been done, once for all tests.
    """
    blocks = commands("docs/tutorial.md")
    assert len(blocks) >= 9
    assert "".join(blocks).count(PLACEHOLDER) == 1
    first = blocks[0].replace(PLACEHOLDER, str(repository))
    status, said = run_page(folder, first, reader(folder))
    assert status == 0, said
    rest, installing = re.subn(r"^(python3 -m venv|pip install) .*\n", "", first, flags=re.M)
    assert installing == 2
    return [rest, *blocks[1:]]


def test_the_tutorial_twice(folder: Path, tutorial: list[str]) -> None:
    """
    Every command works, one after the other, in an empty folder: also where another program has the usual port, and
    all but the installation the second time, while another client is connected.
    """
    script = "".join(tutorial)
    start = next(block for block in tutorial if "dcm-ws serve" in block)
    once_more = script.replace(start, start + "dcm-ws tail > other.txt 2>&1 &\nwait_until grep -q ws:// other.txt\n")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            # where something has it already, it is taken as well
            taken.bind(("127.0.0.1", 3849))
            taken.listen()
        status, said = run_page(folder, script + once_more, reader(folder))
    logs = "".join(log.read_text() for log in (folder / "empty").glob("*.log"))
    assert status == 0, f"{said}\n{logs}"
    for line in (
        "system.info",
        '{"text":"hello"}',
        "done: {'id': 'task-3', 'sum': 6}",
        "worked on task.created {'id': 'task-1', 'sum': 1}",
        '"event":"subtask.created"',
        "worked on subtask.created {'id': 'row-",
        "of the transaction that was rolled back, nothing arrived",
        "worked on task.created {'id': 'task-committed', 'sum': 42}",
        "worked on task.created {'id': 'task-without-service', 'sum': 42}",
        '"data":{"id":"task-committed","numbers":[20,22]}',
        '"data":{"id":"task-without-service","numbers":[20,22]}',
    ):
        assert said.count(line) >= 2, f"{line}\n{said}"
    assert "gave up" not in said
    assert "task-rolled-back" not in said
    shown = outputs("docs/tutorial.md")
    assert len(shown) >= 15
    assert [line for line in shown if len(matches(line).findall(said)) < 2] == [], said


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md", "docs/two-agents.md"])
def test_any_shell(page: str) -> None:
    """
    No command has a pattern of file names that may match nothing: zsh, the shell of macOS, would not run it.
    """
    assert not set("*?[") & set(unquoted("".join(commands(page))).replace("[ ", ""))


def test_the_first_page(folder: Path, another_folder: Path, repository: Path, tutorial: list[str]) -> None:
    """
    The commands of the first page work from an empty folder, each block in a terminal of its own.  The clone has the
    tutorial's virtual environment, in which the project is installed once more, as the script does it.
    """
    (repository / ".venv").symlink_to(folder / "empty" / ".venv")
    git(repository, "add", "--force", ".venv")
    git(repository, "commit", "--quiet", "--message", "with an environment")
    start, watch, publish, *_ = commands("README.md")
    assert PLACEHOLDER in start and "dcm-ws tail" in watch and "dcm-ws publish" in publish
    script = f"""
wait_until() {{ for _ in $(seq {LONGEST * 5}); do "$@" && return; sleep 0.2; done; return 1; }}
( {start.replace(PLACEHOLDER, str(repository))} ) > ../service.log 2>&1 &
wait_until grep -q '\\] ready' ../service.log
( {watch} ) > ../seen.txt 2>&1 &
wait_until grep -q ws:// ../seen.txt
( {publish} )
wait_until grep -q '"task_id":"42"' ../seen.txt
wait_until grep -q '"task_id":"43"' ../seen.txt
"""
    port = free_port()
    environment = reader(
        another_folder,
        WS_PORT=str(port),
        DCM_WS_URL=f"ws://127.0.0.1:{port}/",
        DCM_DATA_DIR=str(another_folder / "data"),
    )
    status, said = run_page(another_folder, script, environment)
    log = (another_folder / "service.log").read_text()
    assert status == 0, f"{said}\n{log}"
    seen = (another_folder / "seen.txt").read_text()
    assert "Traceback" not in said + log
    shown = [line for line in outputs("README.md") if line.startswith("TIME ")]
    assert len(shown) == 2
    assert [line for line in shown if not matches(line).search(seen)] == [], seen
