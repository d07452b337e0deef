"""
The quick start, run as it is printed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.pages import LONGEST, commands, folder, reader, run_page
from tests.integration.machine import free_port

__all__ = ["folder"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(LONGEST + 60)]

URL = "postgresql://dcm:PASSWORD@127.0.0.1:PORT/dcm"


def test_the_quick_start(folder: Path) -> None:
    """
    Each block works in its terminal: the program hears what SQL and a client publish, and not what is rolled back.
    The tutorial has the same installation, so this test uses the environment that runs it.
    """
    install, serve, listen, publish, rolled_back, client = commands("docs/quick-start.md")
    assert "pip install" in install and "dcm-ws serve" in serve
    (folder / "empty" / ".venv").symlink_to(sys.prefix)
    port = free_port()
    assert "127.0.0.1:3849" in listen and URL in publish
    listen = listen.replace("127.0.0.1:3849", f"127.0.0.1:{port}")
    publish = publish.replace(URL, r"$(sed -n 's/.*\(postgresql:[^ ]*\).*/\1/p' ../service.log)")
    script = f"""
wait_until() {{ for _ in $(seq 300); do "$@" && return; sleep 0.2; done; return 1; }}
( . .venv/bin/activate; {serve} ) > ../service.log 2>&1 &
wait_until grep -q '\\] ready' ../service.log
( {listen} ) > ../heard.txt 2>&1 &
wait_until grep -q listening ../heard.txt
( {publish}{rolled_back}{client} )
wait_until grep -q 'hello from a client' ../heard.txt
"""
    environment = reader(
        folder, WS_PORT=str(port), DCM_WS_URL=f"ws://127.0.0.1:{port}/", DCM_DATA_DIR=str(folder / "data")
    )
    status, said = run_page(folder, script, environment)
    heard = (folder / "heard.txt").read_text()
    assert status == 0, f"{said}\n{heard}\n{(folder / 'service.log').read_text()}"
    assert heard.splitlines() == [
        "listening",
        "greeting {'text': 'hello from SQL'}",
        "task.created {'text': 'hello from a client'}",
    ]
