"""
Runs the service so that it keeps up its tables often, and with a bug in it if the environment names one:
C{python -m tests.chaos.durable.planted -n dcm-ws ...}.
"""

from __future__ import annotations

import os
import sys

from twisted.scripts.twistd import run

from dcm_ws.postgres import upkeep
from tests.chaos.durable import engine_bugs  # noqa: F401 - it adds its bugs
from tests.chaos.durable.bugs import BUGS
from tests.chaos.durable.service import BUG_VARIABLE, TURN_VARIABLE

_KEEP = 86_400
"""
Seconds for which the log keeps events by default.
"""


def main() -> None:
    """
    Change what the environment says, and run twistd.
    """
    if turn := float(os.environ.get(TURN_VARIABLE) or 0):
        upkeep.LOOK_SECONDS = min(turn / 3, upkeep.LOOK_SECONDS)
        upkeep.TURN_SECONDS = turn
        upkeep.PARTS = int(_KEEP / (3 * turn))
    if name := os.environ.get(BUG_VARIABLE):
        BUGS[name].plant()
    sys.argv[0] = "twistd"
    run()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
