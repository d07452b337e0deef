"""
The end-to-end rows against servers of one's choice, in turn, as Markdown tables.

    python -m benchmarks.rows --rounds 3 \\
        --server dcm-ws='twistd -n --pidfile= --logfile=/dev/null dcm-ws --ws-port {port} --database-url {dsn}' \\
        --server bun_loop='bun benchmarks/peers/bun_loop.ts {port} {dsn}'

Every round runs each row on each server, one after the other, so that what the machine does besides meets all alike.
Compare CPU per delivery, not rates.  C{{dsn}} is a PostgreSQL that is started for the run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.dcmbench import SUITE
from tests.integration.databases import postgres
from tests.integration.machine import free_port

TOOL = Path(__file__).with_name("dcmbench.py")
#: what is compared, by scenario: title, and where it stands in the result
FIGURES = {
    "connect": [("CPU us/connection", ("cpu_us_per_conn",)), ("KiB/connection", ("rss_kb_per_conn",))],
    "fanout": [("CPU us/delivery", ("cpu_us_per_delivery",))],
    "latency": [("p99 ms", ("latency_ms", "p99")), ("CPU us/delivery", ("cpu_us_per_delivery",))],
    "notify": [("p99 ms", ("latency_ms", "p99")), ("CPU us/event", ("cpu_us_per_event",))],
    "notifymax": [("events/s", ("events_per_s",)), ("CPU us/event", ("cpu_us_per_event",))],
    "ping": [("CPU us/round trip", ("cpu_us_per_roundtrip",))],
    "retry": [
        ("longest stall ms, holding", ("hold_rtt_ms", "max")),
        ("sending again", ("resend_rtt_ms", "max")),
        ("all leave", ("close_rtt_ms", "max")),
    ],
}


def main() -> None:
    """
    Run what was asked for, and print the tables.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", required=True, metavar="NAME=COMMAND")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name contains one of these")
    parser.add_argument("--skip", default="", help="servers that have no database: NAME[,NAME]")
    parser.add_argument("--out", default="", help="append every result to this file, as a line of JSON")
    choice = parser.parse_args()
    servers = dict(pair.split("=", 1) for pair in choice.server)
    rows = [row for row in SUITE if any(part in row[0] for part in choice.only)]
    results: dict[tuple[str, str], list[dict[str, object]]] = {}
    with postgres() as database:
        for turn in range(choice.rounds):
            for label, scenario, options in rows:
                for name, command in servers.items():
                    if scenario.startswith("notify") and name in choice.skip.split(","):
                        continue
                    print(f"round {turn + 1}: {label}: {name}", file=sys.stderr, flush=True)
                    result = run(scenario, options, command, database.url, choice.seconds)
                    results.setdefault((label, name), []).append(result)
                    if choice.out:
                        with open(choice.out, "a") as out:
                            out.write(json.dumps({"row": label, "server": name, **result}) + "\n")
    for label, scenario, _ in rows:
        print_table(label, scenario, list(servers), results)


def run(scenario: str, options: dict[str, object], command: str, dsn: str, seconds: float) -> dict[str, object]:
    """
    One row on one server, started afresh.
    """
    port = free_port()
    arguments = [sys.executable, str(TOOL), scenario, "--url", f"ws://127.0.0.1:{port}/", "--pg", dsn]
    arguments += ["--seconds", str(seconds), "--start", command.format(port=port, dsn=dsn)]
    flags = {"n": "-n"}
    for name, value in options.items():
        arguments += [flags.get(name, f"--{name}"), str(value)]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return {"failed": done.returncode}
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def print_table(
    label: str, scenario: str, servers: list[str], results: dict[tuple[str, str], list[dict[str, object]]]
) -> None:
    """
    The medians of a row; in brackets how many times the last server's figure each is.
    """
    figures = FIGURES[scenario]
    print(f"\n**{label}**\n\n| server | {' | '.join(title for title, _ in figures)} | rounds |")
    print(f"|---|{'---|' * (len(figures) + 1)}")
    yardstick = [median(results.get((label, servers[-1]), []), path) for _, path in figures]
    for server in servers:
        runs = results.get((label, server), [])
        cells = []
        for (_, path), unit in zip(figures, yardstick, strict=True):
            value = median(runs, path)
            ratio = f" ({value / unit:.2f})" if value is not None and unit else ""
            cells.append("-" if value is None else f"{value:.3g}{ratio}" if value < 1000 else f"{value:.0f}{ratio}")
        print(f"| {server} | {' | '.join(cells)} | {len(runs)} |")


def median(runs: list[dict[str, object]], path: tuple[str, ...]) -> float | None:
    """
    The median of one figure over all runs that have it.
    """
    found = []
    for run_ in runs:
        value: object = run_
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, int | float):
            found.append(float(value))
    return statistics.median(found) if found else None


if __name__ == "__main__":
    main()
