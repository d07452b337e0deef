"""
Virtual environments of the tests' own, made with uv, which takes a tenth of the time of pip.

The tutorial, which is tested as it is printed, installs with pip.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

UV = Path(sys.executable).with_name("uv")


class Environment:
    """
    A virtual environment.

    @param what: installed in it.

    @ivar python: its Python.
    """

    def __init__(self, folder: Path, *what: str) -> None:
        self._folder = folder
        self.python = folder / "bin" / "python"
        subprocess.run([UV, "venv", "-q", "--python", sys.executable, folder], check=True)
        self.install(*what)

    def install(self, *what: str) -> None:
        subprocess.run([UV, "pip", "install", "-q", "--python", self.python, *what], check=True)

    def packages(self) -> dict[str, str]:
        """
        The installed packages, with their versions.
        """
        command: list[Path | str] = [UV, "pip", "list", "-q", "--format", "json", "--python", self.python]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return {one["name"]: one["version"] for one in json.loads(done.stdout)}

    def command(self, name: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
        clean = {
            variable: value
            for variable, value in os.environ.items()
            if not variable.startswith(("DB_", "DATABASE_", "WS_", "DCM_", "PYTHON"))
        }
        return [str(self._folder / "bin" / name), *arguments], clean

    def run(self, name: str, *arguments: str) -> tuple[int, str]:
        """
        Run a program of the environment; answers its exit status and what it printed.
        """
        command, clean = self.command(name, *arguments)
        done = subprocess.run(
            command,
            env=clean,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout

    def serve(self, name: str, *arguments: str) -> None:
        """
        Start the service, get /health, and stop it with SIGTERM: exit status 0.
        """
        command, clean = self.command(name, *arguments)
        process = subprocess.Popen(
            command, env=clean, cwd=self._folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            assert process.stdout is not None
            log = ""
            while not re.search(r"\bready\b", log):
                line = process.stdout.readline()
                assert line, log
                log += line
            found = re.search(r"health: (http://127\.0\.0\.1:\d+/health)", log)
            assert found is not None, log
            with urllib.request.urlopen(found[1], timeout=30) as answer:
                assert json.load(answer)["status"] == "healthy"
            process.send_signal(signal.SIGTERM)
            rest, _ = process.communicate(timeout=30)
            assert process.returncode == 0, log + rest
        finally:
            process.kill()
            process.wait()
