"""
What was probably meant by a misspelt name.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dcm_ws.cli.suggestions import nearest, note_unknown_events
from tests.cli.running import run


@pytest.mark.parametrize(
    "pattern,near",
    [
        ("task.complete", "task.completed"),
        ("task.craeted", "task.created"),
        ("TASK.CREATED", "task.created"),
        ("tsak.*", "task.*"),
        ("subtasks.*", "subtask.*"),
        ("task", "task.*"),
        # names of the catalogue, and events that an application may have of its own
        ("task.created", None),
        ("task.*", None),
        ("*", None),
        ("*.failed", None),
        ("deploy.finished", None),
        ("pipeline.*", None),
        ("", None),
    ],
)
def test_events(capsys: pytest.CaptureFixture[str], pattern: str, near: str | None) -> None:
    """
    For a pattern that no event of the catalogue matches, a note names the nearest one, if there is a similar one.
    """
    note_unknown_events([pattern])
    said = capsys.readouterr().err
    expected = f"note: {pattern!r} matches no event of the catalogue; did you mean {near!r}?\n"
    assert said == (expected if near else "")


@pytest.mark.parametrize("command", ["tail", "wait"])
def test_note_is_no_error(tmp_path: Path, command: str) -> None:
    """
    A command with such a pattern goes on: here it fails because there is no such host.
    """
    done = run(tmp_path, command, "--event", "task.complete", "--url", "ws://no-such-host.invalid/")
    assert done.returncode == 1 and "unknown host" in done.stderr
    assert done.stderr.startswith("note: 'task.complete' matches no event of the catalogue")


@pytest.mark.parametrize(
    "name,near",
    [("evnt", "event"), ("EVENT", "event"), ("exc", "exclude"), ("events", "event"), ("xyzzy", None), ("", None)],
)
def test_nearest(name: str, near: str | None) -> None:
    """
    A name is meant by similar ones, by its beginning, and whatever its case.
    """
    assert nearest(name, ["event", "exclude", "agent"]) == near
