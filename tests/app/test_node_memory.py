"""
What the workers of one supervisor count together.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable

import pytest

from dcm_ws.app.node_budgets import NodePool
from dcm_ws.app.node_counts import Region, Tally
from dcm_ws.app.node_memory import SHARES, WAYS, NodeMemory, Plan, make_memory, plan_for
from dcm_ws.core.budgets import Allowance
from dcm_ws.core.pooled import PooledBudget
from dcm_ws.http.addresses import UNIX
from dcm_ws.http.shares import CommonShare

SMALL = Plan(workers=3, addresses=16, budgets=2, key=b"secret")
AGENT = Allowance(rate=10.0, burst=16.0, bytes=8000.0)


class Workers:
    """
    The memory as each worker of a service sees it.
    """

    def __init__(self, plan: Plan) -> None:
        self.descriptor = make_memory(plan)
        self.memories = [NodeMemory(self.descriptor, plan) for _ in range(plan.workers)]

    def regions(self, worker: int) -> list[Region]:
        memory = self.memories[worker]
        return [Region(memory.region(number), memory.plan.addresses) for number in range(memory.plan.workers)]

    def shares(self, most: int = 0, per_address: int = 0) -> list[CommonShare]:
        return [
            CommonShare(
                Tally(memory, number, self.regions(number), 0, by_address=bool(per_address)),
                most,
                per_address,
            )
            for number, memory in enumerate(self.memories)
        ]

    def pools(self, now: Callable[[], float], allowance: Allowance = AGENT) -> list[NodePool]:
        return [NodePool(memory, "agents", allowance, now) for memory in self.memories]


def admitted(share: CommonShare, address: str) -> bool:
    if share.refuses(address):
        return False
    share.enter(address)
    return True


def test_plan() -> None:
    """
    The memory has room for the addresses of all connections, and for the budgets of all agents.
    """
    plan = plan_for(4, 10_000)
    assert plan.addresses >= 4 * 10_000
    assert plan.budget_slots >= 10_000
    memory = NodeMemory(make_memory(plan), plan)
    assert len(memory.region(3)) == plan.region
    assert len(memory.budgets(1)[1]) == 3 * plan.budget_slots


def test_table_counts_like_a_dictionary() -> None:
    """
    Whatever comes and goes, and however often names collide, a worker reads what another one counts.
    """
    chance = random.Random(1)
    workers = Workers(SMALL)
    own, other = workers.regions(0)[0], workers.regions(1)[0]
    counts: Counter[int] = Counter()
    # 12 keys for 16 slots: most of them are not where their hash says
    keys = [chance.getrandbits(64) for _ in range(12)]
    for _ in range(5000):
        key = chance.choice(keys)
        if counts[key] and chance.random() < 0.5:
            counts[key] -= 1
            own.remove(key)
        else:
            counts[key] += 1
            own.add(key)
        assert [other.count(one) for one in keys] == [counts[one] for one in keys]


def test_full_table() -> None:
    """
    Names beyond the room are not counted, and that does no harm to others.
    """
    own = Workers(SMALL).regions(0)[0]
    for key in range(1, 40):
        own.add(key)
    assert [own.count(key) for key in (1, 14, 15, 39)] == [1, 1, 0, 0]
    for key in range(39, 0, -1):
        own.remove(key)
    own.add(15)
    assert own.count(15) == 1


def test_limit_per_address_holds_for_all() -> None:
    """
    An address may have as many connections at all workers together as at one; another worker can take the place of one
    that has ended.
    """
    ours, theirs, idle = Workers(SMALL).shares(per_address=3)
    assert [admitted(share, "192.0.2.1") for share in (ours, theirs, ours, theirs, ours)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert theirs.crowded.value == ours.crowded.value == 1
    assert admitted(theirs, "192.0.2.2")
    ours.leave("192.0.2.1")
    assert admitted(idle, "192.0.2.1")
    assert not admitted(ours, "192.0.2.1")
    assert all(admitted(theirs, UNIX) for _ in range(10))


def test_networks_are_counted_as_one() -> None:
    """
    Addresses of one IPv6 network are one at all workers.
    """
    ours, theirs, _ = Workers(SMALL).shares(per_address=1)
    assert admitted(ours, "2001:db8::1")
    assert not admitted(theirs, "2001:db8::2")


def test_limit_in_all_holds_for_all() -> None:
    """
    The total counts at all workers together.
    """
    ours, theirs, _ = Workers(SMALL).shares(most=2)
    assert admitted(ours, "192.0.2.1")
    assert admitted(theirs, "192.0.2.2")
    assert not admitted(ours, "192.0.2.3")
    assert ours.full.value == 1
    theirs.leave("192.0.2.2")
    assert admitted(ours, "192.0.2.3")


def test_last_place_is_not_given_twice() -> None:
    """
    Two workers that look for the last place before either takes it do not both take it.
    """
    ours, theirs, _ = Workers(SMALL).shares(most=1, per_address=1)
    assert not ours.refuses("192.0.2.1")
    assert theirs.refuses("192.0.2.1")
    assert theirs.refuses("192.0.2.2")
    ours.enter("192.0.2.1")
    assert theirs.refuses("192.0.2.1")


def test_forgotten_reservation() -> None:
    """
    A worker that announces a connection and does not take it keeps no place beyond its next connection.
    """
    ours, theirs, _ = Workers(SMALL).shares(per_address=1)
    assert not ours.refuses("192.0.2.1")
    assert admitted(ours, "192.0.2.2")
    assert admitted(theirs, "192.0.2.1")


def test_dead_worker_has_no_connections() -> None:
    """
    What a worker that died has counted is forgotten, and what others have counted is not.
    """
    workers = Workers(SMALL)
    ours, theirs, last = workers.shares(most=3, per_address=1)
    assert admitted(ours, "192.0.2.1")
    assert admitted(theirs, "192.0.2.2")
    workers.memories[2].clear(0)
    assert admitted(last, "192.0.2.1")
    assert not admitted(last, "192.0.2.2")
    assert workers.memories[2].region(0).tolist() == [0] * SMALL.region
    assert Tally(workers.memories[2], 2, workers.regions(2), 0, by_address=True).elsewhere() == 1


def test_worker_stopped_while_it_moves_an_entry() -> None:
    """
    A worker reads what there is if another one was stopped in the middle of a change.
    """
    workers = Workers(SMALL)
    own, other = workers.regions(0)[0], workers.regions(1)[0]
    own.add(5)
    workers.memories[0].region(0)[2 * SHARES] = 1
    assert other.count(5) == 1
    assert other.count(6) == 0


def test_budget_of_all_workers() -> None:
    """
    An agent may spend at all workers together what it may spend at one.
    """
    time_now = [100.0]
    pools = Workers(SMALL).pools(lambda: time_now[0])
    budgets = [PooledBudget(AGENT, time_now[0], pool, "ann") for pool in pools]
    spent = sum(budget.spend(time_now[0], 0) is None for _ in range(20) for budget in budgets)
    assert spent == 16
    time_now[0] += 0.5
    spent = sum(budget.spend(time_now[0], 0) is None for _ in range(20) for budget in budgets)
    assert 3 <= spent <= 5
    other = PooledBudget(AGENT, time_now[0], pools[0], "bob")
    assert other.spend(time_now[0], 0) is None


def test_agents_and_addresses_are_apart() -> None:
    """
    An agent and an address of the same name have different budgets.
    """
    memory = NodeMemory(make_memory(SMALL), SMALL)
    agents, addresses = (NodePool(memory, kind, AGENT, lambda: 0.0) for kind in ("agents", "addresses"))
    agents.put_back("ann", -AGENT.burst, 0.0)
    assert addresses.exchange("ann", 0.0, 0.0).messages > 0.0
    assert agents.exchange("ann", 0.0, 0.0).messages == 0.0


def test_crowded_budgets() -> None:
    """
    If there are more names than slots, the budget that was used longest ago is given up.
    """
    time_now = [100.0]
    pool = Workers(SMALL).pools(lambda: time_now[0])[0]
    names = [f"agent-{number}" for number in range(4 * WAYS)]
    for name in names:
        time_now[0] += 0.001
        pool.put_back(name, -AGENT.burst, 0.0)
    assert pool.exchange(names[-1], 0.0, 0.0).messages == 0.0
    assert pool.exchange(names[0], 0.0, 0.0).messages > 0.0


HOLD = """
import sys, time
from dcm_ws.app.node_memory import NodeMemory, Plan
plan = Plan(workers=3, addresses=16, budgets=2, key=b"secret")
with NodeMemory(int(sys.argv[1]), plan).locked(0) as locked:
    print("locked", locked, flush=True)
    time.sleep(600)
"""


def test_stopped_process_holds_nobody_up() -> None:
    """
    If a process is stopped while it has the lock, others allow messages without it, and use the pool again when the
    process has ended.
    """
    workers = Workers(SMALL)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workers.descriptor)],
        pass_fds=[workers.descriptor],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked True\n"
        pool = workers.pools(time.monotonic)[0]
        pool.put_back("ann", -AGENT.burst, 0.0)
        assert pool.exchange("ann", 0.0, 0.0).messages == AGENT.burst / 8
        with workers.memories[0].locked(0) as locked:
            assert not locked
        with workers.memories[0].locked(1) as locked:
            assert locked
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with workers.memories[0].locked(0) as locked:
        assert locked


ROUNDS = 300
CROWD = """
import random, sys
from dcm_ws.app.node_counts import Region, Tally
from dcm_ws.app.node_memory import NodeMemory, Plan
from dcm_ws.http.shares import CommonShare
plan = Plan(workers=3, addresses=1024, budgets=2, key=b"secret")
number = int(sys.argv[2])
memory = NodeMemory(int(sys.argv[1]), plan)
regions = [Region(memory.region(one), plan.addresses) for one in range(3)]
share = CommonShare(Tally(memory, number, regions, 0, by_address=True), 40, 5)
ours, chance = [], random.Random(number)
for _ in sys.stdin:
    for _ in range(60):
        address = f"192.0.2.{chance.randrange(20)}"
        if not share.refuses(address):
            share.enter(address)
            ours.append(address)
    print(len(ours), flush=True)
    sys.stdin.readline()
    for _ in range(chance.randrange(len(ours) + 1)):
        share.leave(ours.pop(chance.randrange(len(ours))))
    print(len(ours), flush=True)
"""


def told(*racers: subprocess.Popen[str]) -> list[int]:
    """
    Let processes go on, all at the same time, and wait until each has said how many connections it has.
    """
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    return [int(racer.stdout.readline()) for racer in racers if racer.stdout is not None]


@pytest.mark.integration
def test_limits_hold_while_workers_race() -> None:
    """
    Processes that take connections at the same time never have more than the limit together, and reach it.
    """
    plan = Plan(workers=3, addresses=1024, budgets=2, key=b"secret")
    workers = Workers(plan)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", CROWD, str(workers.descriptor), str(number)],
            pass_fds=[workers.descriptor],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ,
        )
        for number in range(3)
    ]
    for _ in range(ROUNDS):
        # all take what they can, at the same time; then all leave some
        assert sum(told(*racers)) <= 40
        told(*racers)
    # nobody disturbs the others: together they reach the limit
    assert sum(told(racer)[0] for racer in racers) == 40
    for racer in racers:
        racer.communicate(timeout=60)
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    for number in range(3):
        own = workers.regions(0)[number]
        # each has kept the connections that it had at the end
        assert sum(own.count(plan.hash_of("0", f"192.0.2.{host}")) for host in range(20)) == own.totals[0]
