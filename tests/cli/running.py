"""
The command as a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests import forking

PROGRAM = str(Path(sys.executable).with_name("dcm-ws"))


def clean(folder: Path, **variables: str) -> dict[str, str]:
    """
    The environment without variables that configure the service, and with a config and a data folder of the test's own.
    """
    named = ("HOST", "NODE_ENV", "LOG_LEVEL")
    mine = {
        name: value
        for name, value in os.environ.items()
        if name not in named and not name.startswith(("WS_", "DB_", "DATABASE_", "DCM_", "PG"))
    }
    return mine | {"XDG_CONFIG_HOME": str(folder / "config"), "DCM_DATA_DIR": str(folder / "data")} | variables


def run(folder: Path, *arguments: str, stdin: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """
    Run C{dcm-ws} in a folder; returns its output and exit code.
    """
    return forking.run([PROGRAM, *arguments], input=stdin or "", timeout=60, cwd=folder, env=clean(folder, **variables))


def check(folder: Path, *arguments: str, **variables: str) -> tuple[int, dict[str, Any]]:
    """
    Run C{dcm-ws check}.

    @return: the exit code, and the findings by name.
    """
    done = run(folder, "check", "--json", *arguments, **variables)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["good"] == (done.returncode == 0)
    return done.returncode, {finding["name"]: finding for finding in report["findings"]}
