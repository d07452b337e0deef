"""
How long commands take to start: processor time and wall time of whole runs, against a service on this machine.

    python -m benchmarks.startup --runs 20

Each line of JSON has the smallest and the median milliseconds of a command, and of a Python that does nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.integration.running import service

PROGRAM = str(Path(sys.executable).with_name("dcm-ws"))
HOOK = json.dumps({"hook_event_name": "SessionStart", "session_id": "startup", "source": "startup"})


def measure(runs: int, command: Sequence[str], environment: dict[str, str], stdin: str) -> dict[str, float]:
    """
    Run a command several times; returns the smallest and the median processor time and wall time, in ms.
    """
    cpu, wall = [], []
    for _ in range(runs):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, env=environment, input=stdin, text=True, capture_output=True, check=True)
        wall.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {
        f"{name}_{kind}_ms": round(1000 * value, 1)
        for name, times in (("cpu", cpu), ("wall", wall))
        for kind, value in (("min", min(times)), ("median", statistics.median(times)))
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as state, service() as running:
        environment = {**os.environ, "XDG_STATE_HOME": state, "DCM_WS_URL": f"ws://127.0.0.1:{running.port}/"}
        # the hook comes first: the wait ends with an event of it
        for name, command in (
            ("python", (sys.executable, "-c", "pass")),
            ("hook", (PROGRAM, "hook")),
            ("wait", (PROGRAM, "wait", "sessions/startup", "--since", "0")),
            ("run", (PROGRAM, "run", "true")),
        ):
            print(json.dumps({"command": name, **measure(runs, command, environment, HOOK)}), flush=True)


if __name__ == "__main__":
    main()
