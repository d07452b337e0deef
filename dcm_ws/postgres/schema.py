"""
The tables that the metrics are read from (protocol, section 7), for a database that has none.
"""

from __future__ import annotations

from dcm_ws.postgres.statements import statement

NAMES = ("sessions", "task_lists", "subtasks", "agent_messages", "actions")


def definition(name: str, table: str) -> str:
    """
    Returns the SQL that creates one of the tables and its indexes.

    @param name: one of L{NAMES}.
    @param table: the new table's name, as SQL.
    """
    return statement(f"tables/{name}", table=table)


TABLES = "\n".join(statement("tables/if_missing", name=name, definition=definition(name, name)) for name in NAMES)
"""
Creates the tables that are missing in all schemas of the search path.  Existing tables are not changed.
"""
