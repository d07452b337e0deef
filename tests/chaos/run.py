"""
Disturbs a real service for a while, and holds what its clients got against what was published:
C{python -m tests.chaos.run --seconds 30 --seed 1}.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.course import disturbed
from tests.chaos.durable import course as durable_course
from tests.chaos.durable.installation import Shape, add_options, shape_of
from tests.chaos.durable.judge import judge
from tests.chaos.durable.report import report as durable_report
from tests.chaos.ledger import Ledger, deaf_times, settle
from tests.chaos.records import Records

_SHOWN = 20


def main() -> int:
    """
    The exit status: 0 where all promises held.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1, help="decides who publishes and what is disturbed, and when")
    parser.add_argument(
        "--durable", action="store_true", help="disturb the log in PostgreSQL, too, and restore backups"
    )
    parser.add_argument("--no-restores", action="store_true", help="with --durable: restore no backups")
    parser.add_argument("--keep", type=float, help="with --durable: keep events for so many seconds only")
    parser.add_argument(
        "--write", type=Path, help="with --durable: a folder for what was written down (pickled) and the service's log"
    )
    parser.add_argument("--bug", default="", help="with --durable: plant this bug into the service")
    add_options(parser.add_argument_group("with --durable"))
    choice = parser.parse_args()
    if choice.durable:
        shape = shape_of(choice)
        return durable(choice, shape)
    records = disturbed(choice.seconds, choice.seed)
    ledger = settle(records)
    print(f"{choice.seconds:g} s, seed {choice.seed}")
    print("\n".join(report(records, ledger)))
    return int(bool(ledger.wrongs))


def durable(choice: argparse.Namespace, shape: Shape) -> int:
    """
    The same for the log in PostgreSQL.
    """
    history, log = durable_course.disturbed(
        choice.seconds, choice.seed, restores=not choice.no_restores, bug=choice.bug, keep=choice.keep, shape=shape
    )
    if choice.write is not None:
        choice.write.mkdir(parents=True, exist_ok=True)
        (choice.write / "service.log").write_text(log)
        # the times of the log are those of the clock on the wall
        written = {"history": history, "wall minus monotonic": time.time() - time.monotonic()}
        (choice.write / "history.pickle").write_bytes(pickle.dumps(written))
    verdict = judge(history)
    print(f"{choice.seconds:g} s, seed {choice.seed}, {shape}")
    print("\n".join(durable_report(history, verdict, log)))
    return int(bool(verdict.wrongs))


def report(records: Records, ledger: Ledger) -> Iterator[str]:
    """
    The ledger in lines of text.
    """
    yield ""
    yield ledger.table()
    yield ""
    for what, count in sorted(records.disturbances.items()):
        yield f"{count:6d} {what}"
    deaf = deaf_times(records)
    yield f"{len(deaf):6d} times not listening to the database, or not known to be ({_length(deaf):.1f} s in all)"
    yield f"{len(records.stays):6d} authentications"
    yield f"{len(records.receipts):6d} frames received, and {records.early} before authentication"
    yield ""
    yield f"{len(ledger.wrongs)} promises broken"
    yield from (f"  {wrong}" for wrong in ledger.wrongs[:_SHOWN])
    if len(ledger.wrongs) > _SHOWN:
        yield f"  and {len(ledger.wrongs) - _SHOWN} more"


def _length(times: list[tuple[float, float]]) -> float:
    """
    Seconds in all, those in several of them counted once.
    """
    length, last = 0.0, 0.0
    for began, ended in sorted(times):
        length += max(0.0, ended - max(began, last))
        last = max(last, ended)
    return length


if __name__ == "__main__":
    sys.exit(main())
