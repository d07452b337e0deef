"""
dcm-ws serve.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.cli.running import PROGRAM, clean, run
from tests.forking import Popen
from tests.integration.machine import PATIENCE

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_serve(tmp_path: Path, how: signal.Signals) -> None:
    """
    It accepts the options and the file of the service, serves, and ends with 0 on SIGTERM and on Ctrl-C.
    """
    (tmp_path / "dcm-ws.toml").write_text('no-database = true\nlog-format = "json"\n')
    process = Popen(
        [PROGRAM, "serve", "--ws-port", "0"], cwd=tmp_path, env=clean(tmp_path), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = ""
        for line in process.stdout:
            text = json.loads(line)["text"] if line.startswith("{") and "text" in json.loads(line) else line
            found = text.partition("http://")[2].partition("/health")
            url = f"http://{found[0]}/health" if found[1] else url
            if "ready" in line:
                break
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            assert json.load(answer)["status"] == "healthy"
        process.send_signal(how)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()


def test_invalid_settings(tmp_path: Path) -> None:
    """
    An invalid setting ends it with 1 and one line, as under twistd.
    """
    (tmp_path / "dcm-ws.toml").write_text("ws_port = 1\n")
    done = run(tmp_path, "serve")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "did you mean 'ws-port'" in done.stderr
    assert run(tmp_path, "serve", "--nonsense").returncode == 1


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--prot", "there is no option --prot (did you mean --ws-port?)"),
        ("--port=1", "there is no option --port (did you mean --ws-port?)"),
        ("-x", "there is no option -x"),
        ("--log-", "--log- can be any of --log-format, --log-keep, --log-level, --log-max-bytes"),
    ],
)
def test_misspelt_options(tmp_path: Path, option: str, said: str) -> None:
    """
    The error for an unknown option is one line, and suggests the nearest option.
    """
    done = run(tmp_path, "serve", option)
    assert (done.returncode, done.stderr) == (1, f"dcm-ws: {said}; see dcm-ws serve --help\n")


def test_help(tmp_path: Path) -> None:
    """
    It lists the options, and wraps their texts once.
    """
    done = run(tmp_path, "serve", "--help")
    assert done.returncode == 0
    for option in ("--ws-port=", "--listen=", "--config=", "--production", "--admin-listen="):
        assert option in done.stdout
    assert not re.search(r"^ {30}.*\S {2,}\S", done.stdout, re.M)
