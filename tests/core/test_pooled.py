"""
Budgets that several processes spend from together.
"""

from __future__ import annotations

from twisted.internet.task import Clock

from dcm_ws.core.budgets import FRAGMENT, Allowance, Budget, Budgets
from dcm_ws.core.pooled import Drawn, PooledBudget, divided, filled
from dcm_ws.core.session import Origin
from dcm_ws.protocol.errors import CloseCode
from tests.fakes import Client, RecordingPeer, make_core

AGENT = Allowance(rate=10.0, burst=16.0, bytes=8000.0)


class Levels:
    """
    A pool that several cores of one test have in common.

    @ivar asked: how often somebody put something back or took something out.
    """

    def __init__(self, clock: Clock, allowance: Allowance) -> None:
        self._clock = clock
        self._allowance = allowance
        self._levels: dict[str, tuple[float, float, float]] = {}
        self.asked = 0

    def exchange(self, name: str, messages: float, size: float) -> Drawn:
        drawn = divided(self._allowance, *self._after(name, messages, size))
        self._levels[name] = (drawn.messages_left, drawn.bytes_left, self._clock.seconds())
        return drawn

    def put_back(self, name: str, messages: float, size: float) -> None:
        self._levels[name] = (*self._after(name, messages, size), self._clock.seconds())

    def _after(self, name: str, messages: float, size: float) -> tuple[float, float]:
        self.asked += 1
        now, allowance = self._clock.seconds(), self._allowance
        left, bytes_left, since = self._levels.get(name, (allowance.burst, allowance.bytes, now))
        return filled(allowance, left + messages, bytes_left + size, now - since)


def budgets(clock: Clock, processes: int, allowance: Allowance = AGENT) -> tuple[Levels, list[PooledBudget]]:
    """
    A pool, and the budgets of one name in so many processes.
    """
    levels = Levels(clock, allowance)
    return levels, [PooledBudget(allowance, clock.seconds(), levels, "ann") for _ in range(processes)]


def spent(clock: Clock, budget: Budget, times: int, size: int = 0) -> int:
    """
    Send so many messages; how many are allowed.
    """
    return sum(budget.spend(clock.seconds(), size) is None for _ in range(times))


def test_one_process_gets_all(clock: Clock) -> None:
    """
    The only process that spends may send what a budget of its own would allow, and again when time has passed.
    """
    _, (ann,) = budgets(clock, 1)
    assert spent(clock, ann, 20) == 16
    clock.advance(0.5)
    assert spent(clock, ann, 20) == 5
    clock.advance(60.0)
    assert spent(clock, ann, 20) == 16


def test_together_they_get_as_much_as_one(clock: Clock) -> None:
    """
    However the messages are spread over processes, no more are allowed than with one, and hardly fewer.
    """
    _, anns = budgets(clock, 4)
    first = sum(spent(clock, ann, 1) for _ in range(20) for ann in anns)
    assert first == 16
    total = 0
    for _ in range(100):
        clock.advance(0.1)
        total += sum(spent(clock, ann, 1) for ann in anns)
    # each process may have a portion that it has not spent
    assert 100 - 4 * 2 <= total <= 100


def test_messages_are_spent_in_portions(clock: Clock) -> None:
    """
    The pool is not asked for each message, and not for each one that is refused.
    """
    allowance = Allowance(rate=100.0, burst=800.0)
    levels, (ann,) = budgets(clock, 1, allowance)
    assert spent(clock, ann, 800) == 800
    assert levels.asked == 8
    assert spent(clock, ann, 1000) == 0
    assert levels.asked == 9


def test_wait(clock: Clock) -> None:
    """
    A refusal says how long to wait; after that time the message is allowed.
    """
    _, (ann,) = budgets(clock, 1)
    spent(clock, ann, 16)
    refusal = ann.spend(clock.seconds(), 0)
    assert refusal is not None
    assert refusal.unit == "messages"
    assert refusal.most == 10.0
    clock.advance(refusal.seconds / 2)
    assert ann.spend(clock.seconds(), 0) is not None
    clock.advance(refusal.seconds)
    assert ann.spend(clock.seconds(), 0) is None


def test_bytes(clock: Clock) -> None:
    """
    A message may take more bytes than there are, whichever process reads it; then all have to wait.
    """
    _, (here, there) = budgets(clock, 2)
    assert here.spend(clock.seconds(), 16_000) is None
    refusal = here.spend(clock.seconds(), 1)
    assert refusal is not None
    assert refusal.unit == "bytes"
    elsewhere = there.spend(clock.seconds(), 1)
    assert elsewhere is not None
    assert elsewhere.unit == "bytes"
    assert elsewhere.seconds > 1.0
    # control frames without a payload are only counted
    clock.advance(0.06)
    assert there.spend(clock.seconds(), 0) is None
    clock.advance(elsewhere.seconds)
    assert there.spend(clock.seconds(), 1) is None


def test_no_limit_of_messages(clock: Clock) -> None:
    """
    If only bytes are limited, messages are not.
    """
    _, (ann,) = budgets(clock, 1, Allowance(rate=0.0, bytes=1000.0))
    assert spent(clock, ann, 500, size=1) == 500
    assert not ann.refused(600)
    clock.advance(60.0)
    assert ann.is_full(clock.seconds())


def test_fragments(clock: Clock) -> None:
    """
    Bytes of a message that is not complete are taken out of the pool, too.
    """
    _, (here, there) = budgets(clock, 2)
    assert all(here.overdraw(clock.seconds(), FRAGMENT) for _ in range(8))
    assert not here.overdraw(clock.seconds(), FRAGMENT)
    assert there.spend(clock.seconds(), 1) is not None
    _, (unlimited,) = budgets(clock, 1, Allowance(rate=1.0))
    assert unlimited.overdraw(clock.seconds(), 1 << 30)


def test_charged_beyond_a_message(clock: Clock) -> None:
    """
    What a message costs beyond itself is owed to the pool.
    """
    _, (here, there) = budgets(clock, 2)
    assert here.spend(clock.seconds(), 0) is None
    here.charge(15.0)
    here.put_back()
    assert there.spend(clock.seconds(), 0) is not None


def test_leaving_gives_back(clock: Clock) -> None:
    """
    An agent that moves to another process finds there what it has not spent, and no more.
    """
    levels = Levels(clock, AGENT)
    here, there = (
        Budgets(AGENT, clock.seconds, make=lambda name, at: PooledBudget(AGENT, at, levels, name)) for _ in range(2)
    )
    assert spent(clock, here.hold("ann"), 3) == 3
    here.release("ann")
    assert spent(clock, there.hold("ann"), 20) == 13
    clock.advance(0.1)
    here.forget()
    assert len(here) == 0


def test_refusals_are_remembered(clock: Clock) -> None:
    """
    A client that was refused often finds that again when it is back.
    """
    levels = Levels(clock, AGENT)
    names = Budgets(AGENT, clock.seconds, make=lambda name, at: PooledBudget(AGENT, at, levels, name))
    budget = names.hold("ann")
    while not budget.refused(0):
        pass
    names.release("ann")
    names.forget()
    assert names.hold("ann") is budget
    clock.advance(60.0)
    assert spent(clock, budget, 1) == 1
    assert budget.excess == 0.0


def test_agent_at_two_services(clock: Clock) -> None:
    """
    The connections of an agent share a budget, also if they are at different processes; so do those of an address.
    """
    levels: dict[str, Levels] = {}

    def pool(kind: str, allowance: Allowance) -> Levels:
        return levels.setdefault(kind, Levels(clock, allowance))

    cores = [make_core(clock, rate_limit=10.0, rate_burst=5.0, pool=pool) for _ in range(2)]
    anns = [Client(core) for core in cores]
    for ann in anns:
        ann.auth("ann")
    answers = [answer for _ in range(5) for ann in anns for answer in ann.say(type="ping")]
    assert sum(answer.get("code") != "RATE_LIMITED" for answer in answers) == 5
    assert set(levels) == {"agents", "addresses"}


def test_clients_of_all_processes_count(clock: Clock) -> None:
    """
    One client too many is turned away, also if the others are at another process.
    """
    elsewhere = [1]
    core = make_core(clock, max_connections=2, clients_elsewhere=lambda: elsewhere[0])
    Client(core)
    crowd = RecordingPeer()
    assert core.hub.connect(crowd, Origin()) is None
    assert crowd.closed is CloseCode.TRY_AGAIN_LATER
    elsewhere[0] = 0
    assert Client(core).peer.closed is None
