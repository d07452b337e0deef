"""
One worker against several, in one run, as a Markdown table.

    python -m benchmarks.workers --share 0.2 --rounds 3

A machine with two cores cannot show what two workers do, because the clients of the measurement need a core themselves.
So each worker gets only a share of a core, as a quota of the kernel's scheduler, and clients and PostgreSQL have the
rest.  This takes root, and the cpu controller of cgroups, version 1 or 2.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.dcmbench import descendants
from benchmarks.durable_rig import Service, install, print_table, syncing, until
from benchmarks.rows import TOOL
from tests.integration.databases import PostgresServer

_PERIOD_US = 10_000
_VERSION_1 = Path("/sys/fs/cgroup/cpu")
_VERSION_2 = Path("/sys/fs/cgroup")
# enough in flight that a worker which has used up its quota finds work when it gets the next one
_CLIENTS = ("-n", "1000", "--window", "64")
_HANDSHAKES = 256
_ROWS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("connections/s", ("connect", "-n", "4000", "--inflight", "{handshakes}"), "conn_per_s"),
    ("deliveries/s, untracked", ("fanout", *_CLIENTS), "deliveries_per_s"),
    ("deliveries/s, tracked and acknowledged", ("fanout", *_CLIENTS, "--event", "task.updated"), "deliveries_per_s"),
)


@contextmanager
def limited(pids: Iterable[int], share: float) -> Iterator[None]:
    """
    Let each process have a share of a core and no more.
    """
    first = (_VERSION_1 / "cpu.cfs_quota_us").exists()
    groups = []
    try:
        for pid in pids:
            group = (_VERSION_1 if first else _VERSION_2) / f"dcm-ws-benchmark-{pid}"
            group.mkdir()
            groups.append(group)
            quota = round(share * _PERIOD_US)
            if first:
                (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
                (group / "cpu.cfs_quota_us").write_text(str(quota))
            else:
                (group / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
            (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for group in groups:
            until(lambda folder=group: not (folder / "cgroup.procs").read_text(), "the workers have ended")
            group.rmdir()


class Workers(Service):
    """
    A service with some workers.
    """

    def __init__(self, database: PostgresServer, workers: int) -> None:
        self._workers = workers
        super().__init__(database, "--workers", str(workers), "--rate-limit", "off", "--rate-bytes", "off")

    def _is_up(self) -> bool:
        health = self.health()
        # the sums leave out workers that do not answer yet
        logs = [one.get("log") for one in health.get("workers", ())] or [health["log"]["state"]]
        return len(logs) == self._workers and all(log in ("up", "following") for log in logs)

    @property
    def pids(self) -> list[int]:
        """
        The processes that have clients.
        """
        own = self.process.pid
        return [own] if self._workers == 1 else [pid for pid in descendants(own) if pid != own]


def measured(service: Workers, arguments: Iterable[str], seconds: float) -> dict[str, float]:
    """
    What the load generator says.
    """
    # the same number for each worker: the more of them it finds at once, the less each one costs
    handshakes = _HANDSHAKES * len(service.pids)
    given = [argument.format(handshakes=handshakes) for argument in arguments]
    command = [sys.executable, str(TOOL), *given, "--seconds", str(seconds), "--runs", "1"]
    command += ["--url", f"ws://127.0.0.1:{service.port}/", "--pid", ",".join(map(str, service.pids))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """
    Run what was asked for, and print the table.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.2, help="of a core, for each worker")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    choice = parser.parse_args()
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    with syncing() as database:
        install(database)
        for _ in range(choice.rounds):
            for row, arguments, figure in _ROWS:
                for workers in (1, choice.workers):
                    if choice.only not in row:
                        continue
                    service = Workers(database, workers)
                    with limited(service.pids, choice.share):
                        try:
                            result = measured(service, arguments, choice.seconds)
                        finally:
                            service.stop()
                    found.setdefault((row, workers), []).append(result)
                    print(row, workers, round(result[figure]), result, file=sys.stderr, flush=True)
    rows = []
    for row, _, figure in _ROWS:
        if (row, 1) in found:
            one, several = (found[row, workers] for workers in (1, choice.workers))
            rates = [statistics.median(run[figure] for run in runs) for runs in (one, several)]
            rows.append(
                {
                    "": row,
                    "one worker": round(rates[0]),
                    f"{choice.workers} workers": round(rates[1]),
                    "times": round(rates[1] / rates[0], 2),
                    **{
                        f"CPU % of {what}": " / ".join(
                            f"{statistics.median(run[share] for run in runs):.0f}" for runs in (one, several)
                        )
                        for what, share in (("the workers", "server_cpu_pct"), ("the load generator", "client_cpu_pct"))
                    },
                }
            )
    print_table(f"{choice.workers} workers, each with {choice.share:g} of a core; {os.cpu_count()} cores", rows)


if __name__ == "__main__":
    main()
