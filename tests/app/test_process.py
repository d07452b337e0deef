"""
The command, as a process of its own.
"""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dcm_ws.app.process import spare_full_collections, too_few_files
from dcm_ws.app.settings import Settings
from tests import forking

VARIABLES = (
    *("WS_PORT", "HOST", "WS_AUTH_SECRET", "DATABASE_URL"),
    *("DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD"),
    *("DCM_ENV", "DCM_DATA_DIR", "LOG_LEVEL"),
)
OPTIONS = (
    *("ack-timeout", "max-attempts", "retry-interval", "heartbeat-interval", "heartbeat-timeout"),
    *("metrics-interval", "auth-timeout", "drain", "max-connections", "max-message-size", "max-send-buffer"),
    *("max-subscriptions", "extra-event", "listen", "enforce-expiry", "log-format", "production"),
)
DEFAULTS = {
    **{"ack-timeout": 5, "max-attempts": 3, "retry-interval": 1, "heartbeat-interval": 30, "heartbeat-timeout": 60},
    **{"metrics-interval": 5, "auth-timeout": 10, "drain": 2, "max-connections": 10_000},
    **{"max-message-size": 1_048_576, "max-send-buffer": 4_194_304, "max-subscriptions": 1000},
}


def command(*arguments: str) -> list[str]:
    """
    The command line that runs the service in the foreground.
    """
    twistd = str(Path(sys.executable).with_name("twistd"))
    return [twistd, "-n", "--pidfile=", "dcm-ws", *arguments]


def clean(**variables: str) -> dict[str, str]:
    """
    The environment without what would configure the service, and with C{variables}.
    """
    named = {"HOST", "DCM_ENV", "NODE_ENV", "DCM_DATA_DIR", "LOG_LEVEL"}
    mine = {
        name: value
        for name, value in os.environ.items()
        if name not in named and not name.startswith(("WS_", "DB_", "DATABASE_"))
    }
    return mine | {"COLUMNS": "200"} | variables


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """
    The output of the command and its exit status.
    """
    return forking.run(command(*arguments), input="", timeout=30, env=clean(**variables))


def test_help() -> None:
    """
    --help names every option and every variable, with its default.
    """
    ended = run("--help")
    assert ended.returncode == 0
    for variable in VARIABLES:
        option = variable.lower().replace("_", "-")
        assert re.search(rf"--{option}=\s+{variable}\b", ended.stdout), variable
    for option in OPTIONS:
        assert re.search(rf"--{option}[= ]", ended.stdout), option
    text = " ".join(ended.stdout.split())
    for option, default in DEFAULTS.items():
        assert re.search(rf"--{option}= [^=]*\[default: {default}( seconds| bytes)?\]", text), option
    for default in ("3849", "127.0.0.1", "dcm-dev-secret-change-me", "development", "info"):  # type: ignore[assignment]
        assert f"[default: {default}]" in text


def test_plugin_is_listed() -> None:
    """
    twistd lists the command.
    """
    twistd = command()[0]
    ended = forking.run([twistd, "--help"], input="", timeout=30)
    assert re.search(r"^\s+dcm-ws\s+\S", ended.stdout, re.MULTILINE)


def test_version() -> None:
    """
    --version prints the version.
    """
    ended = run("--version")
    assert ended.returncode == 0
    assert "dcm-ws 2.0.0" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "variables", "named"),
    [
        (["--ack-timeout", "soon"], {}, "--ack-timeout"),
        ([], {"WS_PORT": "http"}, "WS_PORT"),
        (["--no-such-option"], {}, "no-such-option"),
        (["--ack-timeout"], {}, "ack-timeout"),
        (["leftover"], {}, "leftover"),
    ],
)
def test_bad_value(arguments: list[str], variables: dict[str, str], named: str) -> None:
    """
    An invalid value ends the command with exit status 1 and one line that names it.
    """
    ended = run(*arguments, **variables)
    assert ended.returncode == 1
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("dcm-ws: ")
    assert named in lines[0]


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("tcp:port=none", "should be a Twisted endpoint"),
        ("nonsense", "should be a Twisted endpoint"),
        ("tcp:0:interface=192.0.2.1", "cannot listen on tcp:0:interface=192.0.2.1"),
        ("unix:/no/such/folder/x.sock", "cannot listen on unix:/no/such/folder/x.sock"),
    ],
)
def test_cannot_listen(endpoint: str, reason: str) -> None:
    """
    A service that cannot listen logs the reason in one line, and ends with exit status 1.
    """
    ended = run("--no-database", "--listen", endpoint)
    assert ended.returncode == 1
    said = [line for line in ended.stdout.splitlines() if "cannot start" in line]
    assert len(said) == 1
    assert reason in said[0]
    assert "Traceback" not in ended.stdout + ended.stderr


def logged(*arguments: str, until: str, **variables: str) -> list[str]:
    """
    The lines that the service logs; it is stopped as soon as a line contains C{until}.
    """
    process = forking.Popen(
        command("--no-database", "--listen", "tcp:0:interface=127.0.0.1", *arguments),
        env=clean(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if until in line:
                process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        return lines
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_json_log() -> None:
    """
    With --log-format json every line of the log is a JSON object, from the first to the last.
    """
    lines = [json.loads(line) for line in logged("--log-format", "json", until='"ready"')]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    messages = [line["message"] for line in lines]
    assert "ready" in messages
    assert "stopped" in messages
    assert any(message.startswith("listening on ws://127.0.0.1:") for message in messages)


def test_text_log() -> None:
    """
    The log is lines for people by default.
    """
    lines = logged(until="] ready", LOG_LEVEL="debug")
    assert any(re.fullmatch(r"\S+Z info +\[dcm_ws\.service\.DCMService\] ready\n", line) for line in lines)
    assert "stopped" in lines[-1] or any("stopped" in line for line in lines)


@pytest.mark.parametrize(("limit", "warned"), [(None, 0), (1 << 20, 0), (1150, 0), (1149, 1), (256, 1)])
def test_too_few_file_descriptors(limit: int | None, warned: int) -> None:
    """
    The start warns if there are fewer file descriptors than connections are allowed; each other setting counts, too.
    """
    settings = Settings(max_connections=1000, max_http_connections=50)
    warnings = too_few_files(limit, settings)
    assert len(warnings) == warned
    assert all("--max-connections" in warning and str(limit) in warning for warning in warnings)


def test_few_file_descriptors_are_logged() -> None:
    """
    The warning is logged if the service has few file descriptors, and not if it has enough.
    """
    few = run_limited(256)
    assert "only 256 file descriptors" in few
    assert "file descriptors" not in run_limited(256, "--max-connections", "20", "--max-http-connections", "20")


def run_limited(files: int, *options: str) -> str:
    """
    The log of a service that may open C{files} files, until it is ready.
    """
    program = Path(sys.executable).with_name("twistd")
    command = f"ulimit -n {files} && exec {program} -n --pidfile= dcm-ws --ws-port 0 --no-database {' '.join(options)}"
    shell = ["/bin/sh", "-c", command]
    with subprocess.Popen(shell, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as ran:
        assert ran.stdout is not None
        said = ""
        try:
            for line in ran.stdout:
                said += line
                if "] ready" in line:
                    break
        finally:
            ran.terminate()
        return said


def test_full_collections_are_rare() -> None:
    """
    What has been built is visited by no collection, and the others come as seldom as they can find something.
    """
    before = gc.get_threshold()
    try:
        spare_full_collections()
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold() == (*before[:2], 10_000)
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
