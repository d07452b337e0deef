"""
The table of the catalogue: each event, when it is published, and what its data is.

C{python -m dcm_ws.app.documentation} makes the tables of C{docs/events.md} and the types for
TypeScript and Python of it.
"""

from __future__ import annotations

from typing import NamedTuple

from dcm_ws.protocol.payloads import AGENT, MESSAGE, METRICS, PRESENCE, SESSION, SUBTASK, SYSTEM, TASK, Payload


class Entry(NamedTuple):
    """
    An event of the catalogue.

    @ivar when: when it is published, in a table for people.
    """

    name: str
    payload: Payload
    when: str


_BY_STATUS = "`status` of a row of `{0}` becomes `{1}`"

EVENTS = (
    Entry("task.created", TASK, "a row of `task_lists` is inserted; `dcm-ws run` starts a command"),
    Entry("task.updated", TASK, "another column or status of a row of `task_lists` changes; an agent claims a task"),
    Entry("task.completed", TASK, f"{_BY_STATUS.format('task_lists', 'completed')}; a command or an agent succeeds"),
    Entry("task.failed", TASK, f"{_BY_STATUS.format('task_lists', 'failed')}; a command or an agent fails"),
    Entry("subtask.created", SUBTASK, "a row of `subtasks` is inserted; `dcm-ws run --subtask-of` starts a command"),
    Entry("subtask.updated", SUBTASK, "another column or status of a row of `subtasks` changes"),
    Entry("subtask.running", SUBTASK, f"{_BY_STATUS.format('subtasks', 'running')}; a subagent starts"),
    Entry("subtask.completed", SUBTASK, f"{_BY_STATUS.format('subtasks', 'completed')}; a command or a subagent ends"),
    Entry("subtask.failed", SUBTASK, f"{_BY_STATUS.format('subtasks', 'failed')}; a command fails"),
    Entry("message.new", MESSAGE, "a row of `agent_messages` is inserted; an agent sends a message"),
    Entry("message.read", MESSAGE, "a row of `agent_messages` is marked as read"),
    Entry("message.expired", MESSAGE, "`expires_at` of a row of `agent_messages` is set to a time in the past"),
    Entry("agent.connected", PRESENCE, "a client authenticates"),
    Entry("agent.disconnected", PRESENCE, "the connection of an authenticated client ends"),
    Entry("agent.heartbeat", AGENT, "an agent or a command still works"),
    Entry("agent.blocked", AGENT, "an agent waits for somebody"),
    Entry("agent.unblocked", AGENT, "an agent goes on"),
    Entry("session.created", SESSION, "a row of `sessions` is inserted; a session of a coding agent starts"),
    Entry("session.ended", SESSION, "`ended_at` of a row of `sessions` is set; a session of a coding agent ends"),
    Entry("metric.update", METRICS, "every 5 s, while a client is subscribed to `metrics`"),
    Entry("system.error", SYSTEM, "the database cannot be reached"),
    Entry("system.info", SYSTEM, "the database can be reached again; the service is about to close all connections"),
)
"""
The catalogue, in the order in which people are shown it.
"""
