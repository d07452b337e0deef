"""
Runs the service with a bug in it: C{python -m tests.chaos.durable.planted -n dcm-ws ...}.
"""

from __future__ import annotations

import os
import sys

from twisted.scripts.twistd import run

from tests.chaos.durable.bugs import BUGS
from tests.chaos.durable.service import BUG_VARIABLE


def main() -> None:
    """
    Plant the bug that the environment names, and run twistd.
    """
    BUGS[os.environ[BUG_VARIABLE]].plant()
    sys.argv[0] = "twistd"
    run()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
