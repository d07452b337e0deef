"""
Plants bugs into the service, one at a time, and prints how long it takes until each is found:
C{python -m tests.chaos.durable.hunt [NAME ...]}.
"""

from __future__ import annotations

import argparse
import sys

from tests.chaos.durable import engine_bugs  # noqa: F401 - it adds its bugs
from tests.chaos.durable.bugs import BUGS
from tests.chaos.durable.course import disturbed
from tests.chaos.durable.judge import judge

_SECONDS = 20.0
_COURSES = 3
_PATIENCE = 10.0
_KEEP = 4.0


def hunt(name: str, seconds: float = _SECONDS) -> tuple[float, str] | None:
    """
    Run up to three courses with a bug.

    @return: the seconds of disturbances until it was found, and what was found first; None if it was not.
    """
    for course in range(1, _COURSES + 1):
        keep = _KEEP if name == "dropped_silently" else None
        try:
            history, _ = disturbed(seconds, course, bug=name, keep=keep, patience=_PATIENCE)
        except RuntimeError as error:
            return course * seconds, str(error).splitlines()[0]
        wrongs = judge(history).wrongs
        if wrongs:
            # what was found in the records says more than that something did not come true
            wrongs.sort(key=lambda one: "did not come true" in one[1])
            return course * seconds, wrongs[0][1]
    return None


def main() -> int:
    """
    The exit status: 0 if all bugs were found.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of bugs; all if there is none")
    missed = 0
    for name in parser.parse_args().names or BUGS:
        found = hunt(name)
        missed += found is None
        shown = "not found" if found is None else f"{found[0]:3.0f} s  {found[1][:160]}"
        print(f"{name:28} {shown}", flush=True)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
