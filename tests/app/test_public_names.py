"""
What applications import.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

PUBLIC = (
    "dcm_ws.Settings",
    "dcm_ws.SettingsError",
    "dcm_ws.make_service",
    "dcm_ws.channels.GLOBAL",
    "dcm_ws.channels.parse_channel",
    "dcm_ws.errors.ProtocolError",
    "dcm_ws.service.StartError",
    "dcm_ws.service.make_service",
    "dcm_ws.tap.Options",
    "dcm_ws.tap.makeService",
    "dcm_ws.version.VERSION",
)


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_twisted_is_imported_when_it_is_needed() -> None:
    """
    Importing the package does not import Twisted, which takes a third of a second.
    """
    assert run("import sys, dcm_ws; print('twisted' in sys.modules)") == "False\n"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names(name: str) -> None:
    """
    Each public name is where applications import it from.
    """
    module, _, attribute = name.rpartition(".")
    assert hasattr(__import__(module, fromlist=[attribute]), attribute)


def test_other_names() -> None:
    """
    The package has no other names.
    """
    import dcm_ws

    with pytest.raises(AttributeError, match="no_such_name"):
        dcm_ws.no_such_name  # noqa: B018
