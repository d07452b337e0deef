"""
Plants bugs into the service, one at a time, and prints how long it takes until each is found:
C{python -m tests.chaos.durable.hunt [NAME ...]}, also with C{--nodes}, C{--workers} and C{--nats}.
"""

from __future__ import annotations

import argparse
import sys

from tests.chaos.durable import cluster_bugs, engine_bugs  # noqa: F401 - they add their bugs
from tests.chaos.durable.bugs import BUGS
from tests.chaos.durable.course import disturbed
from tests.chaos.durable.installation import Shape, add_options, shape_of
from tests.chaos.durable.judge import judge

_ALONE = Shape()
_SECONDS = 20.0
_COURSES = 3
_WITH_RESTORES = 2
"""
The course in which backups are restored.
"""
_PATIENCE = 20.0
_KEEP = 4.0
_WEAK = ("did not come true", "('mark',", "('burst',")
"""
In what a machine that is too slow would cause as well: something did not come in time at the end.
"""


def hunt(name: str, shape: Shape = _ALONE, seconds: float = _SECONDS) -> tuple[float, str] | None:
    """
    Run up to three courses with a bug.

    @param name: of the bug; empty for none, of which nothing must be found.
    @param shape: of the service.
    @return: the seconds of disturbances until it was found, and what was found first; None if it was not.  What a slow
        machine would cause as well counts if all courses find it.
    """
    weak: list[str] = []
    for course in range(1, _COURSES + 1):
        keep = _KEEP if name == "dropped_silently" else None
        try:
            # what is lost before a restore cannot be told from what the restore lost
            restores = course == _WITH_RESTORES
            history, _ = disturbed(
                seconds, course, bug=name, restores=restores, keep=keep, patience=_PATIENCE, shape=shape
            )
        except RuntimeError as error:
            return course * seconds, str(error).splitlines()[0]
        wrongs = [wrong for _, wrong in judge(history).wrongs]
        for wrong in wrongs:
            if not any(sign in wrong for sign in _WEAK):
                return course * seconds, wrong
        weak += wrongs[:1]
    return (_COURSES * seconds, weak[0]) if len(weak) == _COURSES else None


def main() -> int:
    """
    The exit status: 0 if all bugs were found.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", help="of bugs, or none for the service as it is; all bugs if there is no name"
    )
    add_options(parser)
    choice = parser.parse_args()
    shape, missed = shape_of(choice), 0
    for name in choice.names or BUGS:
        found = hunt("" if name == "none" else name, shape)
        missed += found is None
        shown = "not found" if found is None else f"{found[0]:3.0f} s  {found[1][:160]}"
        print(f"{name:28} {shown}", flush=True)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
