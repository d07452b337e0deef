"""
The package as its users get it: built, installed into a clean environment, and started there.
"""

from __future__ import annotations

import email
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from dcm_ws.version import VERSION
from tests.package.environments import Environment

pytestmark = [pytest.mark.package, pytest.mark.timeout(400)]  # installs packages into new environments

ROOT = Path(__file__).parents[2]
URL = "https://git.example.com/dcm/dcm-ws"
NOT_SOURCE = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "node_modules", "dropin.cache")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A copy of the source, in which nothing has been built or installed.
    """
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("source") / "dcm-ws", ignore=NOT_SOURCE)


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A folder with the sdists and the wheels that were built from them, as for a release.
    """
    folder = tmp_path_factory.mktemp("built")
    copy = shutil.copytree(source, tmp_path_factory.mktemp("release") / "dcm-ws")
    released = (copy / "CHANGELOG.md").read_text().replace("## [Unreleased]\n", f"## [{VERSION}] - 2026-11-27\n", 1)
    (copy / "CHANGELOG.md").write_text(released)
    # secrets of somebody who tries contrib/compose.yaml
    (copy / "contrib" / "secrets").mkdir()
    (copy / "contrib" / "secrets" / "db_password").write_text("secret")
    subprocess.run([sys.executable, str(copy / "scripts" / "release"), f"{URL}/", str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("dcm_ws-*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """
    A clean environment with the wheel, and what that depends on: installed by uv, with a wheel of txpostgres that pip
    has made, as docs/installing.md says.
    """
    folder = tmp_path_factory.mktemp("environment")
    make = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", "wheels", "txpostgres"]
    subprocess.run(make, check=True, cwd=folder)
    return Environment(folder / "venv", "--find-links", str(folder / "wheels"), str(wheel))


def test_wheel_has_what_it_should(wheel: Path) -> None:
    """
    The wheel has the package, its type marker, the files for browsers, the SQL, the plugin and the licence, and nothing
    else.
    """
    names = zipfile.ZipFile(wheel).namelist()
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "dcm_ws").rglob("*.py")}
    web = {str(path.relative_to(ROOT)) for path in (ROOT / "dcm_ws" / "web").rglob("*") if path.is_file()}
    assert {"dcm_ws/web/live.html", "dcm_ws/web/dcm-ws.js", "dcm_ws/web/docs/show.js"} < web
    sql = {str(path.relative_to(ROOT)) for path in (ROOT / "dcm_ws" / "postgres" / "sql").rglob("*.sql")}
    assert "dcm_ws/postgres/sql/triggers/install.sql" in sql
    assert modules | web | sql | {"dcm_ws/py.typed"} == {name for name in names if name.startswith("dcm_ws/")}
    (plugin,) = (name for name in names if name.startswith("twisted/"))
    assert plugin.startswith("twisted/plugins/")
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"dcm_ws", "twisted"}
    assert any(name.endswith("/LICENSE") for name in names)


def test_sdist_has_the_source(built: Path) -> None:
    """
    The sdist is enough to build from, and has the documentation, the tests and the changelog, but no secrets.
    """
    (sdist,) = built.glob("dcm_ws-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.cfg", "pyproject.toml", "LICENSE", "dcm_ws/tap.py", "dcm_ws/py.typed"} <= names
    assert any(name.startswith("twisted/plugins/") for name in names)
    assert {"CHANGELOG.md", "docs/protocol.md", "docs/images/live-light.png", "contrib/Dockerfile"} <= names
    assert {"tests/package/test_package.py", "tests/client/conversation-cases.json", "scripts/test"} <= names
    assert not any(re.search(r"contrib/secrets|__pycache__|node_modules", name) for name in names)


@pytest.mark.parametrize("name", ["dcm_ws", "dcm_ws_client"])
def test_page_in_the_index(built: Path, name: str) -> None:
    """
    What a package index shows has the URLs of the project, and no link that works only in the repository.
    """
    (wheel,) = built.glob(f"{name}-*.whl")
    text = zipfile.ZipFile(wheel).read(f"{name}-{VERSION}.dist-info/METADATA").decode()
    metadata = email.message_from_string(text)
    urls = dict(one.split(", ") for one in metadata.get_all("Project-URL", []))
    assert urls["Source"] == URL and set(urls) == {"Source", "Documentation", "Changelog", "Issues"}
    links = re.findall(r"\]\(([^)]+)\)", metadata.get_payload())  # type: ignore[arg-type]
    assert all(link.startswith(("https://", "#")) for link in links)
    if name == "dcm_ws":
        assert f"{URL}/blob/HEAD/docs/protocol.md" in links and f"{URL}/raw/HEAD/docs/images/live-light.png" in links


def test_release_needs_a_changelog(source: Path) -> None:
    """
    Without a dated section of the changelog for the version, or with changes that are in none, nothing is released.
    """
    changelog = source / "CHANGELOG.md"
    text = changelog.read_text()
    begun, _, released = text.partition("## [Unreleased]\n")
    for wrong, reason in [
        (f"{begun}## [Unreleased]\n\n- Something.\n{released}", "CHANGELOG.md: move what is under Unreleased"),
        (text.replace(f"[{VERSION}] - ", f"[{VERSION}] of "), f"CHANGELOG.md: there is no section '## [{VERSION}] - "),
    ]:
        changelog.write_text(wrong)
        try:
            done = subprocess.run(
                [sys.executable, str(source / "scripts" / "release"), URL, str(source / "dist")],
                capture_output=True,
                text=True,
            )
        finally:
            changelog.write_text(text)
        assert (done.returncode, done.stdout) == (1, "")
        assert reason in done.stderr
        assert not (source / "dist").exists()


def test_service_with_uv(environment: Environment) -> None:
    """
    The steps for uv are those of the documentation, and its command is there.
    """
    steps = (ROOT / "docs" / "installing.md").read_text()
    assert "pip wheel --no-deps --wheel-dir wheels txpostgres" in steps and "--find-links wheels" in steps
    assert environment.packages()["dcm-ws"] == VERSION
    assert environment.run("dcm-ws", "--version") == (0, f"dcm-ws {VERSION}\n")


@pytest.mark.parametrize("how", ["wheel", "editable"])
def test_installed_plugin(environment: Environment, wheel: Path, source: Path, how: str) -> None:
    """
    Installed from the wheel or in editable mode, twistd and twist both know dcm-ws, and it serves.
    """
    what = {"wheel": [str(wheel)], "editable": ["-e", str(source)]}[how]
    environment.install("--no-deps", "--reinstall", *what)
    status, text = environment.run("twistd", "--help")
    assert status == 0
    assert "dcm-ws" in text
    assert "Traceback" not in text
    environment.serve("twistd", "-n", "--pidfile=", "dcm-ws", "--no-database", "--ws-port=0")
    environment.serve("twist", "dcm-ws", "--no-database", "--ws-port=0")


def test_without_a_database_and_without_the_extra(environment: Environment) -> None:
    """
    Without a database and without the embedded one the start ends with one line that names both ways out.
    """
    status, text = environment.run("twistd", "-n", "--pidfile=", "dcm-ws", "--ws-port=0")
    assert status == 1
    (line,) = text.splitlines()
    assert "DATABASE_URL" in line
    assert "pip install 'dcm-ws[embedded]'" in line


def test_package_says_what_it_is(environment: Environment) -> None:
    """
    The names that the package exports are there, and its version is the one that was built.
    """
    code = "import dcm_ws; print(dcm_ws.__version__, sorted(dcm_ws.__all__))"
    status, text = environment.run("python", "-c", code)
    assert status == 0, text
    version, _, names = text.strip().partition(" ")
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert "make_service" in names
