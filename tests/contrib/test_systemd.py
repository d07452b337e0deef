"""
The units for systemd: contrib/systemd.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from dcm_ws.app.modes import drain_delay, has_durable_log
from dcm_ws.app.supervisor import GRACE
from tests.contrib.files import CONTRIB, ROOT, SCRIPTS, read

FOLDER = CONTRIB / "systemd"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
INSTALLED = "/opt/dcm-ws/bin/"
ANALYZE = shutil.which("systemd-analyze", path=f"/usr/bin:{os.environ['PATH']}")


class _Unit(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


def unit() -> configparser.SectionProxy:
    """
    The section of the service.
    """
    file = _Unit(strict=False, delimiters=("=",), comment_prefixes=("#",))
    file.read(FOLDER / "dcm-ws.service")
    return file["Service"]


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """
    The units, with the programs of this checkout.
    """
    if ANALYZE is None:
        pytest.skip("there is no systemd-analyze")
    for file in (FOLDER / "dcm-ws.service", FOLDER / "dcm-ws.socket"):
        (tmp_path / file.name).write_text(file.read_text().replace(INSTALLED, f"{SCRIPTS}/"))
    return [str(tmp_path / "dcm-ws.service"), str(tmp_path / "dcm-ws.socket")]


def analyze(*arguments: str) -> tuple[int, str]:
    """
    The exit status and the output of systemd-analyze.
    """
    assert ANALYZE is not None
    done = subprocess.run([ANALYZE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def test_verified(units: list[str]) -> None:
    """
    systemd knows every line of the units, and finds the programs.
    """
    assert analyze("verify", "--man=no", *units) == (0, "")


def test_security(units: list[str]) -> None:
    """
    The exposure of the service is under 2.0 of 10, in the eyes of systemd.
    """
    status, text = analyze("security", "--offline=yes", "--threshold=20", "--no-pager", units[0])
    assert status == 0, text
    found = re.search(r"Overall exposure level for dcm-ws.service: ([\d.]+)", text)
    assert found is not None
    assert f"exposure level of {found[1]} " in OPERATIONS


def test_settings(tmp_path: Path) -> None:
    """
    The service understands the command and the file of the unit: it runs in production, with its secret from a file.
    """
    secret = "s" * 32
    (tmp_path / "ws-auth-secret").write_text(secret)
    (tmp_path / "ws-auth-secret").chmod(0o400)
    Path(shutil.copy(FOLDER / "dcm-ws.toml", tmp_path)).chmod(0o400)
    program, *command = shlex.split(unit()["ExecStart"].replace("/etc/dcm-ws", str(tmp_path)))
    assert program == f"{INSTALLED}dcm-ws"
    settings, sources = read(command, {"DCM_ENV": "", "HOST": "", "WS_PORT": ""})
    assert sources.ignored == sources.warnings == ()
    assert settings.production and settings.secret == secret and has_durable_log(settings)
    # systemd asks for no more if the service needs no more than the unit allows
    assert int(unit()["TimeoutStopSec"]) >= drain_delay(settings) + settings.drain + GRACE
    assert int(unit()["LimitNOFILE"]) >= settings.max_connections + settings.max_http_connections + 100


def test_service_manager() -> None:
    """
    The unit has what the service supports: it reports that it is ready, gives signs of life, and reloads on SIGHUP.
    """
    service = unit()
    assert service["Type"] == "notify" and int(service["WatchdogSec"]) > 0
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_documented() -> None:
    """
    The steps of the installation name each file of the folder, and the account and the folders of the unit.
    """
    steps = OPERATIONS.partition("## Running under systemd")[2].partition("\n## ")[0]
    for file in FOLDER.iterdir():
        assert f"contrib/systemd/{file.name}" in steps
    assert f"useradd --system --no-create-home --shell /usr/sbin/nologin {unit()['User']}\n" in steps
    assert f"-m {unit()['ConfigurationDirectoryMode']} " in steps
    assert INSTALLED.removesuffix("/bin/") in steps
