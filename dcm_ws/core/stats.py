"""
The state of the core in figures, for C{/health} and C{/stats}.
"""

from __future__ import annotations

from itertools import islice
from typing import NotRequired, TypedDict

from dcm_ws.core.agents import AgentMemory
from dcm_ws.core.clients import Clients
from dcm_ws.core.counts import Counts
from dcm_ws.core.dead_letters import DeadLetters
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.keys import PublishKeys
from dcm_ws.core.loads import Load, Loads
from dcm_ws.core.ports import Log
from dcm_ws.core.registry import ChannelRegistry
from dcm_ws.core.session import Session

NAMES_SHOWN = 1000
"""
Channels that C{channelStats} lists, at most, and agents that C{agentStats} lists; C{agentLoads} lists as many
connected agents, as many absent ones, and as many with dead letters.
"""


class EventStats(TypedDict):
    """
    Events that were published, by their source, and notifications that were not events.
    """

    client: int
    database: int
    badNotifications: int


class DeliveryStats(TypedDict):
    """
    What became of tracked deliveries.
    """

    acked: int
    nacked: int
    retried: int
    givenUp: int
    neverAcknowledged: int
    keptForAbsentAgents: int


class AgentStats(TypedDict):
    """
    The number of agents in each state.
    """

    connected: int
    absent: int
    remembered: int


class LogStats(TypedDict):
    """
    What is in the log, what became of clients that caught up with it, and what its engine does.

    C{fallback} is true if the log is in memory because the database has none; C{reason}, which is there if names are
    included, says why.  C{lagSeconds} is the sum over C{lagged} events, and C{stepSeconds} that over C{steps}.
    """

    epoch: str
    head: int
    first: int
    events: int
    bytes: int
    inFlight: int
    owed: int
    catchingUp: int
    behind: int
    replays: int
    gaps: int
    takeovers: int
    engine: str
    state: str
    reason: NotRequired[str]
    fallback: bool
    maxBytes: int
    oldest: int | None
    keep: float
    partitions: int
    inboxBytes: int
    heldSince: int | None
    waiting: int
    waitingBytes: int
    refused: int
    steps: int
    stepSeconds: float
    numbered: int
    lagged: int
    lagSeconds: float
    reads: int
    readsWaiting: int


class ChannelFigures(TypedDict):
    """
    How many clients there are, and where they listen.
    """

    connectedClients: int
    activeChannels: int
    channelStats: NotRequired[dict[str, int]]


class DeadLetterStats(TypedDict):
    """
    Dead letters that are kept, and how many events died or were redriven since the start.
    """

    kept: int
    bytes: int
    waiting: int
    died: int
    poison: int
    redriven: int


class KeyStats(TypedDict):
    """
    Keys of publishes that are remembered, and publishes that repeated one.
    """

    remembered: int
    duplicates: int


class TokenKeyStats(TypedDict):
    """
    How often the keys of tokens were fetched, how often that failed, and how often an unknown one was not fetched.
    """

    fetches: int
    failures: int
    refused: int


class Sizes(ChannelFigures):
    """
    The figures that C{/health} and C{/stats} share.
    """

    pendingDeliveries: int


class AgentNames(TypedDict, total=False):
    """
    The connections and the load of each agent, if names are included.
    """

    agentStats: dict[str, int]
    agentLoads: dict[str, Load]


class CoreStats(Sizes, AgentNames):
    """
    The figures of C{/stats} that the core knows.
    """

    failedDeliveries: int
    authenticatedClients: int
    observers: int
    totalConnections: int
    events: EventStats
    deliveries: DeliveryStats
    agents: AgentStats
    log: LogStats
    deadLetters: DeadLetterStats
    keys: KeyStats
    tokenKeys: TokenKeyStats
    refusals: dict[str, int]
    closes: dict[str, int]
    limits: dict[str, int]


class Stats:
    """
    Puts together what there is now, and what has been counted since the start.
    """

    def __init__(
        self,
        counts: Counts,
        *,
        clients: Clients,
        registry: ChannelRegistry[Session],
        deliveries: DeliveryQueue,
        memory: AgentMemory,
        letters: DeadLetters,
        keys: PublishKeys,
        log: Log,
    ) -> None:
        self._counts = counts
        self._clients = clients
        self._registry = registry
        self._deliveries = deliveries
        self._memory = memory
        self._letters = letters
        self._keys = keys
        self._log = log
        self._loads = Loads(clients=clients, deliveries=deliveries, memory=memory, letters=letters, log=log)

    def sizes(self, *, names: bool) -> Sizes:
        """
        The figures that C{/health} and C{/stats} share.

        @param names: include the names of the channels.
        """
        sizes: ChannelFigures = {
            "connectedClients": len(self._clients.sessions),
            "activeChannels": len(self._registry),
        }
        if names:
            sizes["channelStats"] = dict(self._registry.sizes(NAMES_SHOWN))
        return {**sizes, "pendingDeliveries": self._deliveries.pending}

    def report(self, *, names: bool) -> CoreStats:
        """
        The figures of C{/stats}, as of now.

        @param names: include the names of the channels and of the agents.
        """
        counts, deliveries = self._counts, self._counts.deliveries
        named: AgentNames = {}
        if names:
            connections = islice(self._clients.connections.items(), NAMES_SHOWN)
            named["agentStats"] = {agent: len(sessions) for agent, sessions in connections}
            named["agentLoads"] = self._loads.of_agents(NAMES_SHOWN)
        return {
            **self.sizes(names=names),
            **named,
            "failedDeliveries": deliveries.given_up,
            "authenticatedClients": self._clients.authenticated,
            "observers": len(self._clients.observers),
            "totalConnections": counts.connections,
            "events": {
                "client": sum(counts.events.client.values()),
                "database": sum(counts.events.database.values()),
                "badNotifications": counts.events.bad_notifications,
            },
            "deliveries": {
                "acked": deliveries.acked,
                "nacked": deliveries.nacked,
                "retried": deliveries.retried,
                "givenUp": deliveries.given_up,
                "neverAcknowledged": deliveries.never_acknowledged,
                "keptForAbsentAgents": self._memory.kept,
            },
            "agents": {
                "connected": len(self._clients.connections),
                "absent": self._memory.absent,
                "remembered": len(self._memory),
            },
            "log": self._of_log(names=names),
            "deadLetters": {
                "kept": len(self._letters),
                "bytes": self._letters.bytes,
                "waiting": self._letters.redriven,
                "died": counts.dead_letters.died.value,
                "poison": counts.dead_letters.poison,
                "redriven": counts.dead_letters.redriven,
            },
            "keys": {"remembered": len(self._keys), "duplicates": counts.keys.duplicates},
            "tokenKeys": {
                "fetches": counts.token_keys.fetches,
                "failures": counts.token_keys.failures,
                "refused": counts.token_keys.refused,
            },
            "refusals": {str(code): times for code, times in counts.refusals.items()},
            "closes": {str(int(code)): n for code, n in counts.closes.items()},
            "limits": counts.limits.report(),
        }

    def _of_log(self, *, names: bool) -> LogStats:
        """
        @param names: include the reason, which may name the database.
        """
        log, counts, engine = self._log.report(), self._counts.log, self._counts.engine
        figures: LogStats = {
            "epoch": log["epoch"],
            "head": log["head"],
            "first": log["first"],
            "events": log["events"],
            "bytes": log["bytes"],
            "inFlight": self._deliveries.pending,
            "owed": self._loads.owed,
            "catchingUp": len(self._clients.behind),
            "behind": self._loads.behind,
            "replays": counts.replays,
            "gaps": counts.gaps,
            "takeovers": counts.takeovers,
            "engine": log["engine"],
            "state": log["state"],
            "fallback": log["engine"] == "memory" and bool(log["reason"]),
            "maxBytes": log["maxBytes"],
            "oldest": log["oldest"],
            "keep": log["keep"],
            "partitions": log["partitions"],
            "inboxBytes": log["inboxBytes"],
            "heldSince": log["heldSince"],
            "waiting": log["waiting"],
            "waitingBytes": log["waitingBytes"],
            "refused": engine.refused.value,
            "steps": engine.steps,
            "stepSeconds": round(engine.step_seconds.sum, 6),
            "numbered": engine.numbered,
            "lagged": sum(engine.lag_seconds.counts),
            "lagSeconds": round(engine.lag_seconds.sum, 6),
            "reads": engine.reads,
            "readsWaiting": log["readsWaiting"],
        }
        if names:
            figures["reason"] = log["reason"]
        return figures
