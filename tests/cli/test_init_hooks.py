"""
dcm-ws init-hooks: settings of a coding agent, changed and changed back.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dcm_ws.cli.hook_settings import (
    DEFAULT_EVENTS,
    SettingsFormatError,
    parsed,
    with_ours,
    without_ours,
    written,
)
from tests.cli.running import clean, run

pytestmark = pytest.mark.integration

THEIRS = {
    "model": "large",
    "zzz": {"unknown": [1, 2.5, None, True, "é"]},
    "hooks": {
        "PostToolUse": [
            {"matcher": "Edit|Write", "hooks": [{"type": "command", "command": "format-it"}]},
            {"matcher": "Bash", "hooks": []},
        ],
        "Stop": [
            {"hooks": [{"type": "prompt", "prompt": "done?"}, {"type": "command", "command": "say dcm-ws hooked"}]}
        ],
        "Future": [],
    },
    "aaa": 1,
}


def init_hooks(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "init-hooks", *arguments, HOME=str(folder / "home"))


def test_shown_first(tmp_path: Path) -> None:
    """
    Without --apply it shows what would change, and changes nothing.
    """
    done = init_hooks(tmp_path)
    assert done.returncode == 0 and "nothing was changed" in done.stderr
    assert '+    "SessionStart": [' in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == []


def test_installed_and_removed(tmp_path: Path) -> None:
    """
    Installing keeps everything else, in its order and form, with a copy of the file; installing again changes nothing;
    removing gives back the file as it was, to the byte.
    """
    file = tmp_path / ".claude" / "settings.local.json"
    file.parent.mkdir()
    before = json.dumps(THEIRS, indent="\t", ensure_ascii=False).replace("\n", "\r\n")
    file.write_bytes(before.encode())
    file.chmod(0o600)
    done = init_hooks(tmp_path, "--agent-id", "back end", "--apply")
    assert done.returncode == 0 and "a copy is in" in done.stderr, done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert (file.parent / "settings.local.json.before-dcm-ws").read_bytes() == before.encode()
    settings = json.loads(file.read_text())
    assert list(settings) == list(THEIRS)
    for event in DEFAULT_EVENTS:
        [hook] = settings["hooks"][event][-1]["hooks"]
        assert hook["type"] == "command" and hook["timeout"] <= 5
        program, *words = shlex.split(hook["command"])
        assert Path(program).is_absolute() and words == ["hook", "--agent-id", "back end"]
    assert settings["hooks"]["PostToolUse"][:2] == THEIRS["hooks"]["PostToolUse"]  # type: ignore[index]
    again = init_hooks(tmp_path, "--agent-id", "back end", "--apply")
    assert again.returncode == 0 and "nothing to change" in again.stderr
    assert init_hooks(tmp_path, "--remove", "--apply").returncode == 0
    assert file.read_bytes() == before.encode()
    assert "nothing to change" in init_hooks(tmp_path, "--remove", "--apply").stderr


def test_other_options_replace(tmp_path: Path) -> None:
    """
    Installing with other options replaces the hooks that were installed before.
    """
    file = tmp_path / "mine.json"
    options = ("--settings", str(file), "--apply")
    assert init_hooks(tmp_path, *options).returncode == 0
    more = ("--event", "Stop", "--full", "--url", "ws://h:1/", "--channel", "topics/t")
    assert init_hooks(tmp_path, *options, *more).returncode == 0
    settings = json.loads(file.read_text())
    assert list(settings["hooks"]) == ["Stop"]
    [group] = settings["hooks"]["Stop"]
    words = shlex.split(group["hooks"][0]["command"])[1:]
    assert words == ["hook", "--url", "ws://h:1/", "--channel", "topics/t", "--full"]


def test_the_command_works(tmp_path: Path) -> None:
    """
    What is installed can be run by a shell, and succeeds without a service.
    """
    file = tmp_path / "mine.json"
    assert init_hooks(tmp_path, "--settings", str(file), "--apply").returncode == 0
    command = json.loads(file.read_text())["hooks"]["SessionEnd"][0]["hooks"][0]["command"]
    done = subprocess.run(
        ["sh", "-c", command],
        input='{"hook_event_name":"SessionEnd","session_id":"s"}',
        env=clean(tmp_path, XDG_STATE_HOME=str(tmp_path / "state"), DCM_WS_URL="ws://127.0.0.1:9/"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert len(list((tmp_path / "state").rglob("*.jsonl"))) == 1


def test_scopes_and_links(tmp_path: Path) -> None:
    """
    Each scope has its file; a link stays a link.
    """
    (tmp_path / "home" / ".claude").mkdir(parents=True)
    real = tmp_path / "dotfiles.json"
    real.write_text("{}")
    (tmp_path / "home" / ".claude" / "settings.json").symlink_to(real)
    assert init_hooks(tmp_path, "--scope", "user", "--apply").returncode == 0
    assert (tmp_path / "home" / ".claude" / "settings.json").is_symlink() and "SessionStart" in real.read_text()
    assert init_hooks(tmp_path, "--scope", "project", "--apply").returncode == 0
    assert (tmp_path / ".claude" / "settings.json").is_file()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "// comment\n{}",
        '{"hooks": []}',
        '{"hooks": {"Stop": {}}}',
        '{"a": 1, "a": 2}',
        "[" * 100_000,
    ],
)
def test_what_it_does_not_touch(tmp_path: Path, text: str) -> None:
    """
    A file that is not what is expected stays as it is, and the error says why.
    """
    file = tmp_path / "mine.json"
    file.write_text(text)
    done = init_hooks(tmp_path, "--settings", str(file), "--apply")
    assert done.returncode == 1 and "nothing was changed" in done.stderr and "Traceback" not in done.stderr
    assert file.read_text() == text and len(list(tmp_path.iterdir())) == 1


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    """
    A folder, and a file in one that cannot be made, are errors; so is text that is not UTF-8.
    """
    (tmp_path / "file").write_bytes(b'{"a": "\xff"}')
    for path in (tmp_path, tmp_path / "file" / "x.json", tmp_path / "file"):
        done = init_hooks(tmp_path, "--settings", str(path), "--apply")
        assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
    assert init_hooks(tmp_path, "--channel", "topics/").returncode == 2
    assert init_hooks(tmp_path, "--event", "Nothing").returncode == 2


@pytest.mark.parametrize(
    "command,ours",
    [
        ("dcm-ws hook", True),
        ("/opt/x/bin/dcm-ws hook --full", True),
        ("'/opt/my tools/dcm-ws' hook", True),
        ("dcm-ws hooked", False),
        ("not-dcm-ws hook", False),
        ("dcm-ws publish x hook", False),
    ],
)
def test_whose_hook_it_is(command: str, ours: bool) -> None:
    """
    Only hooks that run C{dcm-ws hook} are removed.
    """
    settings = {"hooks": {"Stop": [{"hooks": [{"type": "command", "command": command}]}]}}
    assert without_ours(settings) == ({} if ours else settings)


@pytest.mark.parametrize(
    "settings", [{}, {"hooks": {}}, {"hooks": {"Stop": []}}, THEIRS, {"hooks": {"Stop": ["odd", {}]}}]
)
def test_reversible(settings: dict[str, Any]) -> None:
    """
    Removing undoes installing, also in settings of unexpected forms.
    """
    text = json.dumps(settings)
    installed = with_ours(parsed(text), "dcm-ws hook", DEFAULT_EVENTS)
    assert without_ours(installed) in (
        settings,
        {key: value for key, value in settings.items() if key != "hooks" or value},
    )
    assert json.dumps(settings) == text


def test_the_form_of_the_text() -> None:
    """
    Indentation, line ends and the end of the file stay; an empty file has none of its own.
    """
    assert written({"a": {"b": 1}}, "") == '{\n  "a": {\n    "b": 1\n  }\n}\n'
    assert written({"a": 1}, '{\n    "b": 1\n}') == '{\n    "a": 1\n}'
    assert written({"a": 1}, '\ufeff{\r\n\t"b": 1\r\n}\r\n') == '{\r\n\t"a": 1\r\n}\r\n'
    assert written({"a": 1}, '{"b": 1}\n') == '{\n  "a": 1\n}\n'
    assert parsed(" \n") == {} and parsed('\ufeff{"a": 1}') == {"a": 1}
    with pytest.raises(SettingsFormatError):
        parsed("x")
