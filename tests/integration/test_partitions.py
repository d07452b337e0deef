"""
Networks that are cut between the parts of a cluster.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.durable.networks import can_isolate, isolated

pytestmark = pytest.mark.integration


# its tests have limits of their own
@pytest.mark.timeout(600)
def test_partitions() -> None:
    """
    The tests of L{tests.integration.partitions}, in a network namespace of their own.
    """
    if not can_isolate():
        pytest.skip("network namespaces cannot be made here: that takes root, ip and unshare")
    file = str(Path(__file__).with_name("partitions.py"))
    command, variables = isolated([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file])
    done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0 and re.search(r"\b[1-9]\d* passed", done.stdout), done.stdout
