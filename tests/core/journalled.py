"""
A database as the journal sees it, and the restart of a service that has nothing else.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from dcm_ws.core.agent_states import AgentState, AgentStates, encode
from dcm_ws.core.assembly import Core
from dcm_ws.core.dead_letters import Listed
from dcm_ws.core.journal import Changes, Checkpoint
from dcm_ws.core.log import MemoryLog
from tests.core.living import finish
from tests.fakes import make_core


class Database:
    """
    What the tables have, as the service writes and reads it.
    """

    def __init__(self) -> None:
        self.agents: dict[str, bytes] = {}
        self.rows: list[dict[str, bytes]] = []
        self.dead: dict[tuple[str, str], Listed] = {}

    def write(self, changes: Changes) -> None:
        self.rows.append(dict(changes.agents))
        self.dead.update({(one.agent, one.event_id): one for one in changes.letters.kept})
        for key in changes.letters.dropped:
            self.dead.pop(key, None)

    def flush(self, core: Core) -> dict[str, bytes]:
        """
        Write what has changed; return the changes of agents.
        """
        finish(core.journal.collect())
        changes = core.journal.take()
        if changes is None:
            return {}
        self.write(changes)
        core.journal.written(changes)
        return dict(changes.agents)

    def checkpoint(self, core: Core) -> None:
        """
        Write the states of what has changed.
        """
        covered = len(self.rows)
        finish(core.journal.checkpoint())
        checkpoint = core.journal.take_checkpoint()
        if checkpoint is not None:
            self.save(checkpoint, covered)

    def save(self, checkpoint: Checkpoint, covered: int) -> None:
        """
        @param covered: rows that were written before the checkpoint began.
        """
        self.agents.update(checkpoint.agents)
        for agent in checkpoint.gone:
            self.agents.pop(agent, None)
        if checkpoint.complete:
            del self.rows[:covered]

    def states(self) -> dict[str, AgentState]:
        states = AgentStates()
        for agent, state in self.agents.items():
            states.add_state(agent, state)
        for row in self.rows:
            states.add_changes(
                b"{" + b",".join(b'"%b":%b' % (agent.encode(), raw) for agent, raw in row.items()) + b"}"
            )
        assert states.errors == []
        return states.states

    def load(self, core: Core) -> None:
        # as the service does: the next checkpoints have only what changes from now on
        self.agents = {agent: encode(state) for agent, state in self.states().items()}
        self.rows.clear()
        letters = sorted(self.dead.values(), key=lambda letter: letter.died_at)
        finish(core.loading.load(self.states(), letters))


def restarted(clock: Clock, core: Core, database: Database, **choices: Any) -> Core:
    """
    Another core with the same log, that has nothing else but what is in the database.
    """
    log = core.log
    assert isinstance(log, MemoryLog)

    class SameLog(MemoryLog):
        def __new__(cls, *args: Any, **limits: Any) -> Any:
            return log

    # the ids of events must not begin again
    new = make_core(clock, log=SameLog, random=core.world.random, **choices)
    database.load(new)
    return new
