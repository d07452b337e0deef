"""
Where clients store their positions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dcm_ws.client.storage import Keeper, PositionError, PositionFile, Saved, read

SAVED = Saved("k1", {"global": 5, "topics/a": 3}, frozenset({"global"}), "ann")


def test_what_is_stored_is_read(tmp_path: Path) -> None:
    """
    A file has what was saved last, and is written only if that has changed.
    """
    file = tmp_path / "position"
    keeper = Keeper(file, pytest.fail)
    assert keeper.load("ann") is None
    keeper.save(SAVED)
    written = file.stat().st_mtime_ns, file.stat().st_ino
    keeper.save(SAVED)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == written
    keeper.close()
    keeper.close()
    again = Keeper(str(file), pytest.fail)
    assert again.load("ann") == again.load(None) == SAVED
    again.save(SAVED)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["position", "position.lock"]
    again.close()


def test_one_client_at_a_time(tmp_path: Path) -> None:
    """
    A second client with the same file is refused, until the first is closed.
    """
    first, second = PositionFile(tmp_path / "position"), PositionFile(tmp_path / "position")
    first.load()
    with pytest.raises(PositionError, match="in use by another client; each needs a file of its own"):
        second.load()
    first.close()
    assert second.load() is None
    second.close()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("not json", "does not hold the position of a client"),
        ("[" * 100_000, "does not hold the position of a client"),
        ("[]", "it is not a JSON object"),
        ("{}", "it has no epoch"),
        ('{"epoch": 5, "channels": {}}', "it has no epoch"),
        ('{"epoch": "", "channels": {}}', "it has no epoch"),
        ('{"epoch": "k"}', "it has no channels"),
        ('{"epoch": "k", "channels": {"a": -1}}', "it has no channels"),
        ('{"epoch": "k", "channels": {"a": true}}', "it has no channels"),
        ('{"epoch": "k", "channels": {}, "own": {}}', "are not text"),
        ('{"epoch": "k", "channels": {}, "agent": 5}', "are not text"),
        ("\udcff", "does not hold the position of a client"),
    ],
)
def test_damaged_files(tmp_path: Path, text: str, why: str) -> None:
    """
    A file that does not hold a position is an error that names it, and is not overwritten.
    """
    file = tmp_path / "position"
    file.write_text(text, errors="surrogateescape")
    found = PositionFile(file)
    with pytest.raises(PositionError, match=why) as error:
        found.load()
    assert str(file) in str(error.value) and "remove this one" in str(error.value)
    assert file.read_text(errors="surrogateescape") == text
    found.close()


def test_an_empty_file(tmp_path: Path) -> None:
    """
    An empty file is that of a client that has not begun.
    """
    file = tmp_path / "position"
    file.touch()
    found = PositionFile(file)
    assert found.load() is None
    found.close()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """
    A folder in place of the file, or a missing folder, is an error.
    """
    (tmp_path / "folder").mkdir()
    found = PositionFile(tmp_path / "folder")
    with pytest.raises(PositionError, match="cannot be read"):
        found.load()
    found.close()
    with pytest.raises(PositionError, match="cannot be locked"):
        PositionFile(tmp_path / "missing" / "file").load()


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    """
    If the file cannot be written, there is one warning, nothing is left behind, and the next attempt may succeed.
    """
    warnings: list[str] = []
    file = tmp_path / "position"
    keeper = Keeper(PositionFile(file), warnings.append)
    assert keeper.load(None) is None
    file.mkdir()
    keeper.save(SAVED)
    keeper.save(SAVED)
    assert len(warnings) == 1 and warnings[0].startswith("the position cannot be stored: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["position", "position.lock"]
    file.rmdir()
    keeper.save(SAVED)
    assert read(json.loads(file.read_text())) == SAVED
    keeper.close()


class Memory:
    """
    A store of a user.
    """

    def __init__(self, state: Any) -> None:
        self.state = state

    def load(self) -> Any:
        return self.state

    def save(self, state: dict[str, Any]) -> None:
        self.state = state


def test_stores_of_users() -> None:
    """
    A store only needs to load and save; what it returns is checked.
    """
    store = Memory(None)
    keeper = Keeper(store, pytest.fail)
    assert keeper.load("ann") is None
    keeper.save(SAVED)
    assert Keeper(store, pytest.fail).load("ann") == SAVED
    keeper.close()
    with pytest.raises(PositionError, match="that of the agent 'ann', not of 'bob'"):
        Keeper(store, pytest.fail).load("bob")
    with pytest.raises(PositionError, match="cannot be used: it has no epoch"):
        Keeper(Memory({}), pytest.fail).load(None)
