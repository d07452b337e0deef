"""
An hour of events with a short retention: do the tables of the durable log, and the service, stay within bounds?

    python -m benchmarks.retention --minutes 60 --rate 100 --keep 600 > retention.jsonl

It starts a PostgreSQL that syncs, and dcm-ws with the durable log.  Events are published by SQL to an agent that
acknowledges each of them.  Every 30 s a line of JSON has the sizes of all tables of the log; the last line has, for
each figure, its maximum in the first and in the last third of the time after the tables have reached their size, which
takes half an hour, and what is wrong.  The exit status is 1 if something is wrong.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.durable_rig import CHANNEL, PAD, Service, Writers, install, syncing
from benchmarks.returns import said
from dcm_ws.postgres.upkeep import TURN_SECONDS
from tests.integration.databases import PostgresServer

EVENT = "message.new"
"""
It must be acknowledged.
"""

OLDER = 1.2
"""
The log may be older than it is kept by this factor: whole partitions are dropped, and not at once.
"""

_TURNS = 3

GROWTH = 1.3
"""
How much more a figure may be at the end than at the beginning.
"""

_SIZES = """
    select c.relname, pg_total_relation_size(c.oid), coalesce(s.n_dead_tup, 0)
    from pg_class c left join pg_stat_all_tables s on s.relid = c.oid
    where c.relnamespace = 'dcm_ws'::regnamespace and c.relkind in ('r', 'S')
"""
_id = re.compile(rb'\{"id":"([^"]+)"')


class Agent:
    """
    An agent that acknowledges what it gets, in a thread.

    @ivar got: how many events.
    @ivar ended: the connection has ended.
    """

    def __init__(self, service: Service) -> None:
        self.got = 0
        self.ended = False
        self._client = service.connect()
        self._client.sendall(
            said(type="unsubscribe", channel="global") + said(type="auth", agent_id="reader", id="auth")
        )
        self._client.sendall(said(type="subscribe", channel=CHANNEL, id="sub"))
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        tail = b""
        with suppress(OSError):
            while chunk := self._client.recv(1 << 18):
                tail += chunk
                end = tail.rfind(b"}") + 1
                whole, tail = tail[:end], tail[end:]
                if b'"type":"ping"' in whole:
                    self._client.sendall(said(type="pong"))
                events = _id.findall(whole)
                self.got += len(events)
                if events:
                    self._client.sendall(b"".join(said(type="ack", message_id=one.decode()) for one in events))
        self.ended = True


def sample(database: PostgresServer, service: Service, agent: Agent, begun: float, sent: int) -> dict[str, Any]:
    """
    What there is now.
    """
    rows = database.execute(_SIZES)
    log = service.health()["log"]

    def total(prefix: str, column: int) -> int:
        return int(sum(row[column] for row in rows if row[0].startswith(prefix)))

    ((wal,),) = database.execute("select sum(size)::bigint from pg_ls_waldir()")
    return {
        "seconds": round(time.monotonic() - begun),
        "sent": sent,
        "received": agent.got,
        "head": log["head"],
        "kept": log["head"] - log["first"] + 1,
        "partitions": sum(re.fullmatch(r"log_\d+", row[0]) is not None for row in rows),
        "log bytes": total("log", 1),
        "inbox bytes": total("inbox", 1),
        "ack bytes": total("ack", 1),
        "agent bytes": total("agent", 1),
        "meta bytes": total("meta", 1),
        "dead bytes": total("dead", 1),
        "dead tuples": total("", 2),
        "WAL bytes": int(wal),
        "service bytes": service.rss(),
        "tables": {row[0]: [int(row[1]), int(row[2])] for row in rows},
    }


def judge(samples: list[dict[str, Any]], keep: float, rate: float) -> dict[str, Any]:
    """
    Compare the first and the last third of the time in which nothing should grow any more: the oldest events have been
    dropped, and each slot of the inbox has been emptied.  How much WAL there is depends on the server's checkpoints.
    """
    begun = max(OLDER * keep, _TURNS * TURN_SECONDS) + 60
    settled = [one for one in samples if one["seconds"] >= begun]
    wrong = []
    if len(settled) < 6:
        return {"wrong": ["it was too short"]}
    third = len(settled) // 3
    figures = [name for name, value in settled[0].items() if isinstance(value, int) and name not in ("seconds", "head")]
    bounds = {
        name: [max(one[name] for one in part) for part in (settled[:third], settled[-third:])]
        for name in figures
        if name not in ("sent", "received")
    }
    for name, (early, late) in bounds.items():
        # two pages more are no growth
        if name != "WAL bytes" and late > GROWTH * early + 65_536:
            wrong.append(f"{name}: {early} at first, {late} at the end")
    kept = max(one["kept"] for one in settled)
    if kept > OLDER * keep * rate:
        wrong.append(f"{kept} events are kept")
    last = samples[-1]
    if last["sent"] - last["received"] > 10 * rate:
        wrong.append(f"{last['sent']} events were sent, and {last['received']} received")
    return {"bounds": bounds, "wrong": wrong}


def main() -> int:
    """
    Run it, and print a line for each sample.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=100.0, help="events a second")
    parser.add_argument("--keep", type=float, default=600.0, help="seconds")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two samples")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    choice = parser.parse_args()
    samples = []
    with syncing(choice.folder) as database:
        install(database)
        service = Service(database, "--log", "postgres", "--log-keep", str(int(choice.keep)))
        try:
            agent, writers, sent = Agent(service), Writers(database, 4), 0
            time.sleep(1)

            def transaction() -> str:
                nonlocal sent
                sent += 1
                data = json.dumps({"n": sent, "pad": PAD})
                return f"select dcm_ws.publish('{CHANNEL}', '{EVENT}', '{data}')"

            begun = time.monotonic()
            while time.monotonic() - begun < choice.minutes * 60 and not agent.ended:
                writers.run(transaction, choice.every, rate=choice.rate)
                samples.append(sample(database, service, agent, begun, sent))
                print(json.dumps(samples[-1]), flush=True)
            closed = agent.ended
        finally:
            service.stop()
    found = judge(samples, choice.keep, choice.rate)
    if closed:
        found["wrong"].append("the agent was closed")
    print(json.dumps(found))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
