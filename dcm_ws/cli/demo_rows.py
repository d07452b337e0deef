"""
The rows that an application would write for the events of C{dcm-ws demo}: the key figures are read from them.
"""

from __future__ import annotations

import psycopg2

from dcm_ws.cli.demo_steps import Publish

_STATUS = "update {table} set status = %(status)s where id = %(id)s"
_END = "update {table} set status = %(status)s, completed_at = now() where id = %(id)s"
_STATEMENTS = {
    "session.created": "insert into sessions (id) values (%(id)s)",
    "session.ended": "update sessions set ended_at = now() where id = %(id)s",
    "task.created": "insert into task_lists (id, name) values (%(id)s, %(name)s)",
    "task.updated": _STATUS.format(table="task_lists"),
    "task.completed": _END.format(table="task_lists"),
    "task.failed": _END.format(table="task_lists"),
    "subtask.created": "insert into subtasks (id, task_list_id, agent_id, description)"
    " values (%(id)s, %(task_list_id)s, %(agent_id)s, %(description)s)",
    "subtask.running": "with action as (insert into actions (tool_name) values ('work')) "
    + _STATUS.format(table="subtasks"),
    "subtask.completed": _END.format(table="subtasks"),
    "subtask.failed": _END.format(table="subtasks"),
    "message.new": "insert into agent_messages (id, from_agent_id, to_agent_id, topic)"
    " values (%(id)s, %(from_agent_id)s, %(to_agent_id)s, %(topic)s)",
}
_NO_RECEIVER = {"to_agent_id": None, "topic": None}


class Rows:
    """
    Writes the rows.  Its methods block.

    @param url: of the database.
    """

    def __init__(self, url: str) -> None:
        self._connection = psycopg2.connect(url)
        self._connection.autocommit = True

    def write(self, step: Publish) -> None:
        """
        Write what belongs to an event, if anything does.
        """
        statement = _STATEMENTS.get(step.event)
        if statement is not None:
            status = {"status": step.event.rpartition(".")[2]}
            with self._connection.cursor() as cursor:
                cursor.execute(statement, _NO_RECEIVER | status | step.data)

    def close(self) -> None:
        """
        Close the connection.
        """
        self._connection.close()
