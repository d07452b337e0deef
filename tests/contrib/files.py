"""
The files for containers in C{contrib/}, as the programs read them for which they are meant.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from dcm_ws.app.commandline import Options
from dcm_ws.app.reading import settings_of
from dcm_ws.app.settings import Settings
from dcm_ws.app.sources import Sources
from dcm_ws.cli.main import main

ROOT = Path(__file__).parents[2]
CONTRIB = ROOT / "contrib"
SCRIPTS = Path(sysconfig.get_path("scripts"))
IMAGE = "dcm-ws"
"""
The name that the image of the Dockerfile has in the other files.
"""


def compose(*options: str, **variables: str) -> dict[str, Any]:
    """
    The Compose file as Docker Compose understands it.

    @param options: such as C{--profile}.
    @param variables: of the environment.
    """
    done = subprocess.run(
        [SCRIPTS / "docker-compose", "-f", CONTRIB / "compose.yaml", *options, "config", "--format", "json"],
        capture_output=True,
        text=True,
        env={"PATH": os.defpath} | variables,
    )
    assert done.returncode == 0, done.stderr
    # such as a variable that is not set
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def own_services(file: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """
    The services of a Compose file that run dcm-ws, by name.
    """
    return {name: service for name, service in file["services"].items() if service["image"] == IMAGE}


def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    """
    What is in the manifests for Kubernetes, by kind and name.
    """
    found = {}
    for file in sorted((CONTRIB / "kubernetes").glob("*.yaml")):
        for one in yaml.safe_load_all(file.read_text()):
            key = one["kind"], one["metadata"]["name"]
            assert key not in found
            found[key] = one
    return found


def instructions() -> list[tuple[str, str]]:
    """
    The instructions of the Dockerfile, each with its arguments in one line.
    """
    lines = [line for line in (CONTRIB / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def argument(name: str) -> str:
    """
    The arguments of an instruction of the Dockerfile that is there once.
    """
    (found,) = [rest for instruction, rest in instructions() if instruction == name]
    return found


def image_environment() -> dict[str, str]:
    """
    The variables that the image sets.
    """
    return dict(pair.split("=", 1) for pair in argument("ENV").split())


def seconds(text: str) -> int:
    """
    A duration of a Compose file, in seconds.
    """
    found = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text)
    assert found is not None, text
    return 60 * int(found[1] or 0) + int(found[2] or 0)


class _Unchecked(Options):
    def postOptions(self) -> None:
        pass


def read(command: Sequence[str], environment: Mapping[str, str]) -> tuple[Settings, Sources]:
    """
    What a container of the image runs with: its settings, and where they come from.

    @param command: C{serve} and its options.
    @param environment: in addition to that of the image.
    """
    assert command[0] == "serve"
    options = _Unchecked()
    options.parseOptions(list(command[1:]))
    sources = options.sources({**image_environment(), **environment})
    return settings_of(sources.given), sources


def options_of(command: str) -> set[str]:
    """
    The options of another command.
    """
    found = main.get_command(click.Context(main), command)
    assert found is not None, command
    return {option for parameter in found.params for option in parameter.opts}
