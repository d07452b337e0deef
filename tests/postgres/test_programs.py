"""
How PostgreSQL's programs ended.
"""

from __future__ import annotations

import pytest

from dcm_ws.postgres.programs import Result


@pytest.mark.parametrize(
    "output,gist",
    [
        ("", "the program wrote nothing"),
        ("waiting for server to start\n stopped waiting", "stopped waiting"),
        ("starting\ninitdb: error: no space\nremoving data", "initdb: error: no space"),
        ("log\nFATAL: lock file\nHINT: is another running?\nFATAL: more", "FATAL: lock file"),
    ],
)
def test_gist(output: str, gist: str) -> None:
    """
    The first line with an error, or else the last line.
    """
    assert Result(1, output).gist == gist
