"""
dcm-ws: its commands, their help, and the errors for unknown names.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import forking
from tests.cli.running import run

pytestmark = pytest.mark.integration


def test_help_of_each_command(tmp_path: Path) -> None:
    """
    The help of each command has examples and exit codes.
    """
    listed = run(tmp_path, "--help")
    assert listed.returncode == 0
    names = [line.split()[0] for line in listed.stdout.partition("Commands:")[2].splitlines() if line.strip()]
    assert names[:4] == ["serve", "check", "init-db", "token"]
    for name in names:
        done = run(tmp_path, name, "--help")
        assert done.returncode == 0, done.stderr
        assert "Exit codes:" in done.stdout and "Example" in done.stdout, name
    assert run(tmp_path, "--version").stdout.startswith("dcm-ws ")
    assert run(tmp_path, "no-such-command").returncode == 2


@pytest.mark.parametrize(
    "arguments,said",
    [
        (("serve", "--port", "1"), ("did you mean --ws-port", "see dcm-ws serve --help")),
        (("serve", "--databse-url", "x"), ("did you mean --database-url", "see dcm-ws serve --help")),
        (("serve", "--ws-port"), ("requires argument", "see dcm-ws serve --help")),
        (("serve", "extra"), ("'extra'", "see dcm-ws serve --help")),
        (("check", "--prot", "1"), ("--prot", "did you mean")),
        (("tial",), ("did you mean 'tail'",)),
        (("init_db",), ("did you mean 'init-db'",)),
        (("check", "--quite"), ("did you mean --quiet?",)),
        (("subscribe",), ("did you mean 'tail'",)),
        (("dead", "lsit"), ("'list'",)),
        (("dead", "list", "--agnet", "x"), ("--agent",)),
        (("tail", "--cuont", "3"), ("--count",)),
        (("--url", "ws://127.0.0.1:9/", "tail"), ("the options of a command follow its name", "dcm-ws tail --url")),
        (("--json", "tail"), ("the options of a command follow its name", "dcm-ws tail --json")),
        (("--verison",), ("--version",)),
        (("TAIL",), ("did you mean 'tail'",)),
        (("nonsense",), ("there is no command 'nonsense'; dcm-ws --help lists them",)),
        (("dead", "LIST"), ("did you mean 'list'",)),
        (("help", "dead", "redriv"), ("did you mean 'redrive'",)),
        (("-v",), ("did you mean --version?",)),
        (("tail", "-v"), ("dcm-ws --version shows the version",)),
        (("serve", "-v"), ("did you mean --version?",)),
        (("tail", "-e", "task.*"), ("did you mean --event or --exclude?",)),
        (("-e", "task.*", "tail"), ("the options of a command follow its name", "dcm-ws tail -e")),
        (("tail", "--JSON"), ("did you mean --json?",)),
        (("tail", "--xyzzy"), ("there is no option --xyzzy\n", "dcm-ws tail --help")),
        (("publish", "--chanel", "global"), ("CHANNEL needs no option: dcm-ws publish [OPTIONS] [CHANNEL] [EVENT]",)),
        (("check", "--databse", "x"), ("did you mean --database-url?",)),
        (("serve", "--prot", "1"), ("did you mean --ws-port?",)),
    ],
)
def test_suggestions(tmp_path: Path, arguments: tuple[str, ...], said: tuple[str, ...]) -> None:
    """
    The error for a misspelt option or command suggests the nearest one, and names the help of that command.
    """
    done = run(tmp_path, *arguments)
    assert done.returncode in (1, 2) and all(word in done.stderr for word in said), done.stderr
    assert "twistd" not in done.stderr


def test_help_command(tmp_path: Path) -> None:
    """
    help describes a command as its --help does, also a command of a command, and without one lists all commands.
    """
    for names in ((), ("tail",), ("dead", "redrive"), ("serve",)):
        described, asked = run(tmp_path, "help", *names), run(tmp_path, *names, "--help")
        assert described.returncode == asked.returncode == 0, described.stderr
        assert described.stdout == asked.stdout and "Exit codes:" in described.stdout


def test_the_help_of_twistd(tmp_path: Path) -> None:
    """
    Under twistd the error names the help of twistd's command.
    """
    twistd = str(Path(sys.executable).with_name("twistd"))
    done = forking.run([twistd, "dcm-ws", "--port", "1"], input="", timeout=60, cwd=tmp_path)
    assert done.returncode == 1 and "did you mean --ws-port?); see twistd dcm-ws --help" in done.stderr


@pytest.mark.parametrize(
    "words,wanted",
    [
        ("dcm-ws serve --ws-po", ["--ws-port"]),
        ("dcm-ws serve --listen unix:a --admin", ["--admin-listen"]),
        ("dcm-ws check --no-da", ["--no-database"]),
        ("dcm-ws check --con", ["--config"]),
        ("dcm-ws check --js", ["--json"]),
    ],
)
def test_completion(tmp_path: Path, words: str, wanted: list[str]) -> None:
    """
    The shell completes the options of the service for serve and check.
    """
    variables = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), "_DCM_WS_COMPLETE": "bash_complete"}
    assert run(tmp_path, **variables).stdout.split() == [f"plain,{word}" for word in wanted]
