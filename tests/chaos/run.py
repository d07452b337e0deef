"""
Disturbs a real service for a while, and holds what its clients got against what was published:
C{python -m tests.chaos.run --seconds 30 --seed 1}.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from tests.chaos.course import disturbed
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
    choice = parser.parse_args()
    records = disturbed(choice.seconds, choice.seed)
    ledger = settle(records)
    print(f"{choice.seconds:g} s, seed {choice.seed}")
    print("\n".join(report(records, ledger)))
    return int(bool(ledger.wrongs))


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
