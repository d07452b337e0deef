"""
The lock of the versions with which dcm-ws is tested: requirements/test.txt, made by scripts/lock.
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements" / "test.txt").read_text()
ENTRY = re.compile(r"^(\S+)==(\S+?)(?: ; [^\\\n]*)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)
LOCKED = {(canonicalize_name(name), Version(version)) for name, version, _ in ENTRY.findall(LOCK)}


def required() -> list[Requirement]:
    """
    What C{scripts/setup embedded,test} and the site of the documentation need.
    """
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    lines = "".join([setup["options"]["install_requires"], extras["embedded"], extras["test"], extras["docs"]])
    return [Requirement(line) for line in lines.strip().splitlines()]


@pytest.mark.parametrize("requirement", required(), ids=str)
def test_each_requirement_is_locked(requirement: Requirement) -> None:
    """
    Each requirement has a version in the lock that its bounds in C{setup.cfg} allow.
    """
    versions = [version for name, version in LOCKED if name == canonicalize_name(requirement.name)]
    assert versions, "run scripts/lock"
    assert all(version in requirement.specifier for version in versions), "run scripts/lock"


def test_each_line_is_understood() -> None:
    """
    Each package has one exact version and hashes; there is nothing else in the lock, such as the address of an index.
    """
    rest = re.sub(r"^ *#.*\n", "", ENTRY.sub("", LOCK), flags=re.MULTILINE)
    assert rest == ""
    assert "://" not in LOCK
    assert len(LOCKED) > 100
