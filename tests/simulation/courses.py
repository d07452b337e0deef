"""
What may happen to a simulated cluster, at random: courses, each of which has its own kinds of trouble.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dcm_ws.protocol.errors import CloseCode
from tests.simulation.cluster import Cluster
from tests.simulation.nodes import Node

Deed = Callable[[Cluster], object]


def publish(cluster: Cluster) -> None:
    cluster.publish(_channel(cluster))


def burst(cluster: Cluster) -> None:
    for _ in range(cluster.random.randrange(2, 20)):
        cluster.publish(_channel(cluster))


def hop(cluster: Cluster) -> None:
    cluster.any_agent().hop()


def hang(cluster: Cluster) -> None:
    cluster.any_agent().hop(hangs=True)


def leave(cluster: Cluster) -> None:
    cluster.any_agent().leave()


def come(cluster: Cluster) -> None:
    agent = cluster.any_agent()
    if agent.connection is None:
        agent.connect()


def stay_away(cluster: Cluster) -> None:
    """
    A reader stops reading for a while.
    """
    if cluster.readers:
        cluster.random.choice(cluster.readers).leave()


def add(cluster: Cluster) -> None:
    agent = cluster.any_agent()
    if agent.connection is not None and len(agent.others) < 2:
        agent.add()


def close_one(cluster: Cluster) -> None:
    cluster.any_agent().close_one()


def read_elsewhere(cluster: Cluster) -> None:
    if cluster.readers:
        cluster.random.choice(cluster.readers).connect()


def kill(cluster: Cluster) -> None:
    cluster.kill(_node(cluster))
    cluster.add_node()


def replace(cluster: Cluster) -> None:
    """
    One step of a rolling restart.
    """
    node = _node(cluster)
    if not node.stops:
        cluster.stop(node)
        cluster.add_node()


def freeze(cluster: Cluster) -> None:
    node = _node(cluster)
    if not node.process.is_frozen:
        cluster.freeze(node, cluster.random.choice((0.5, 3.0, 8.0, 15.0)))


def cut_off(cluster: Cluster) -> None:
    node = _node(cluster)
    if node.link.is_up:
        cluster.cut_off([node], cluster.random.choice((0.2, 1.0, 4.0, 8.0, 15.0)))


def take_database_away(cluster: Cluster) -> None:
    if not cluster.database.is_away:
        cluster.take_database_away(cluster.random.choice((0.3, 1.0, 3.0, 12.0)))


def take_bus_away(cluster: Cluster) -> None:
    if not cluster.bus_is_away:
        cluster.take_bus_away(cluster.random.choice((0.5, 3.0, 10.0)))


def freeze_bus(cluster: Cluster) -> None:
    if not cluster.hub.is_frozen:
        cluster.freeze_bus(cluster.random.choice((0.1, 0.5, 3.0)))


def part(cluster: Cluster) -> None:
    """
    The nodes fall into two or three groups on the bus.
    """
    sides: list[list[Node]] = [[] for _ in range(cluster.random.choice((2, 2, 3)))]
    for node in cluster.nodes:
        cluster.random.choice(sides).append(node)
    cluster.part(sides, cluster.random.choice((1.0, 5.0, 20.0)))


def lose_messages(cluster: Cluster) -> None:
    """
    The bus loses and doubles messages for a while.
    """
    hub, random = cluster.hub, cluster.random
    if not hub.loss:
        hub.loss, hub.doubles = random.uniform(0.05, 0.5), random.uniform(0.0, 0.3)

        def end() -> None:
            hub.loss = hub.doubles = 0.0

        cluster.trouble(random.choice((1.0, 5.0)), None, end)


def delay_messages(cluster: Cluster) -> None:
    """
    The bus is slow for a while, which costs nothing if it is not too slow.
    """
    hub, random, usual = cluster.hub, cluster.random, cluster.hub.delay
    if usual[1] < 0.05:
        hub.delay = 0.001, random.choice((0.05, 0.15, 1.0))

        def end() -> None:
            hub.delay = usual

        cluster.trouble(random.choice((1.0, 5.0)), None, end)


def redrive(cluster: Cluster) -> None:
    """
    An operator has a dead letter sent again.
    """
    letters = [(agent, id) for agent, dead in cluster.database.dead.items() for id in dead]
    if letters:
        cluster.database.requests[cluster.random.choice(letters)] = "redrive"


def kick(cluster: Cluster) -> None:
    """
    An operator disconnects an agent, at any node.
    """
    node, agent = _node(cluster), cluster.any_agent()
    node.process.do(node.core.expulsion.expel, agent.name, _ignore)


def _ignore(_: object) -> None:
    pass


def _node(cluster: Cluster) -> Node:
    return cluster.random.choice(cluster.nodes)


def _channel(cluster: Cluster) -> str:
    return cluster.random.choice(cluster.channels)


class Course(NamedTuple):
    """
    What happens in a course.

    @ivar deeds: what is chosen from, each as often as its number says.
    @ivar pauses: after each, in seconds.
    @ivar keep: seconds for which the log keeps events.
    @ivar closes: codes with which nodes may close connections.
    """

    deeds: dict[Deed, float]
    pauses: tuple[float, ...] = (0.01, 0.05, 0.3)
    closes: frozenset[CloseCode] = frozenset()
    keep: float = 86_400.0


_USUAL: dict[Deed, float] = {publish: 6, burst: 1, hop: 2, leave: 1, come: 2, read_elsewhere: 1}
_AGAIN = frozenset((CloseCode.RESTART, CloseCode.TRY_AGAIN_LATER))

COURSES: dict[str, Course] = {
    "hops": Course(_USUAL),
    "half-dead connections": Course({**_USUAL, hang: 3, close_one: 2}),
    "several connections": Course({**_USUAL, add: 3, close_one: 2}),
    "crashes": Course({**_USUAL, kill: 0.6, hang: 0.5}, closes=_AGAIN),
    "rolling restarts": Course({**_USUAL, replace: 0.5}, (0.05, 0.3), _AGAIN),
    "frozen nodes": Course({**_USUAL, freeze: 0.6, hang: 0.3}, (0.05, 0.3), _AGAIN),
    "nodes without the database": Course({**_USUAL, cut_off: 0.6, hang: 0.3}, (0.05, 0.3), _AGAIN),
    "the database is away": Course({**_USUAL, take_database_away: 0.5}, (0.05, 0.3), _AGAIN),
    "losses": Course({**_USUAL, lose_messages: 0.7, delay_messages: 0.7, hang: 1}),
    "partitions": Course({**_USUAL, part: 0.5, hang: 1, close_one: 1, add: 0.5}, (0.05, 0.3), _AGAIN),
    "no bus": Course({**_USUAL, take_bus_away: 0.5, hang: 0.5}, (0.05, 0.3), _AGAIN),
    "a frozen bus": Course({**_USUAL, freeze_bus: 0.7, hang: 0.5}, closes=_AGAIN),
    "kicked agents": Course({**_USUAL, kick: 1.5, add: 1, hang: 0.5}, closes=frozenset((CloseCode.DISCONNECTED,))),
    "events that expire": Course(
        {**_USUAL, leave: 2, come: 1, cut_off: 0.3, freeze: 0.2, kill: 0.1, stay_away: 1}, (0.05, 0.3), _AGAIN, keep=2.0
    ),
    "everything": Course(
        {
            **_USUAL,
            **{hang: 0.5, close_one: 0.5, add: 0.3, kill: 0.2, replace: 0.1, freeze: 0.3, cut_off: 0.3, redrive: 0.5},
            **{take_database_away: 0.1, lose_messages: 0.2, delay_messages: 0.2, part: 0.2},
            **{take_bus_away: 0.1, freeze_bus: 0.1},
        },
        (0.05, 0.3),
        _AGAIN,
    ),
}


def crowd(cluster: Cluster, agents: int, readers: int, topics: int) -> None:
    """
    Have agents and readers in a cluster, each with a topic of its own and one for all.
    """
    cluster.channels = [f"topics/{number}" for number in range(topics)]
    for number in range(agents):
        channels = (
            {cluster.channels[number % topics], cluster.channels[-1]}
            if topics < 10
            else {cluster.channels[number % topics]}
        )
        cluster.add_agent(f"a{number}", *sorted(channels), lazy=0.05 if number % 2 else 0.0)
    for number in range(readers):
        cluster.add_reader(f"r{number}", *sorted({cluster.channels[number % topics], cluster.channels[-1]}))


def disturb(cluster: Cluster, course: Course, deeds: int) -> None:
    """
    Do some of what a course has.
    """
    random = cluster.random
    names, weights = list(course.deeds), list(course.deeds.values())
    for _ in range(deeds):
        random.choices(names, weights)[0](cluster)
        cluster.run(random.choice(course.pauses))


def run(cluster: Cluster, course: Course, deeds: int) -> None:
    """
    Let a course take place, and come to rest.
    """
    disturb(cluster, course, deeds)
    # all troubles end
    cluster.run(21.0)
    cluster.settle(25.0)
    for channel in cluster.channels:
        cluster.publish(channel)
    cluster.run(4.0)


def judge(cluster: Cluster, course: Course) -> None:
    """
    Was everything kept that was promised?
    """
    unexpected = {code: number for code, number in cluster.closed.items() if code not in course.closes}
    assert not unexpected, f"connections were closed: {unexpected}"
    cluster.check()
    for roamer in cluster.roamers():
        assert roamer.connection is not None and roamer.connection.is_in, f"{roamer} could not connect"
    cluster.check_presence()
    cluster.check_owners()
