"""
Imports that are put off, and the folder that is found without one.
"""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from platformdirs import user_state_path

from dcm_ws.cli.deferring import spare_collections
from dcm_ws.cli.folders import state_folder


def python(text: str) -> str:
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_module_is_imported_when_it_is_used() -> None:
    """
    A module that was deferred is imported with its first use, in each way in which it can be used.
    """
    found = python(
        "import sys\n"
        "from dcm_ws.cli.deferring import defer\n"
        "for name in ('importlib.metadata', 'urllib.error'): defer(name)\n"
        "import importlib.metadata, urllib.error\n"
        "print('email' in sys.modules, 'tempfile' in sys.modules)\n"
        "print(importlib.metadata.version('click') > '8')\n"
        "from importlib.metadata import PackageNotFoundError\n"
        "import importlib.metadata._meta\n"
        "print('email' in sys.modules, urllib.error.URLError('x').reason)\n"
        "print(sys.modules['importlib.metadata'].PackageNotFoundError is PackageNotFoundError)\n"
    )
    assert found.split() == ["False", "False", "True", "True", "x", "True"]


def test_module_that_was_imported_stays() -> None:
    """
    To defer what has been imported does nothing.
    """
    assert (
        python("import json, sys\nfrom dcm_ws.cli.deferring import defer\ndefer('json')\nprint(json.loads('1'))") == "1"
    )


@pytest.mark.parametrize(
    "state,home",
    [("/var/tmp/state", "/home/x"), ("", "/home/x"), ("relative", "/home/x"), (None, "/home/x"), ("", "")],
)
def test_state_folder(monkeypatch: pytest.MonkeyPatch, state: str | None, home: str) -> None:
    """
    It is where platformdirs finds it.
    """
    monkeypatch.setenv("HOME", home)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    if state is not None:
        monkeypatch.setenv("XDG_STATE_HOME", state)
    assert state_folder() == Path(user_state_path("dcm-ws", appauthor=False))


def test_no_collections_while_importing() -> None:
    """
    Garbage is collected again afterwards, also if the import fails.
    """
    for imported in ("json", "no_such_module"):
        with suppress(ImportError), spare_collections():
            assert not gc.isenabled()
            importlib.import_module(imported)
        assert gc.isenabled()
