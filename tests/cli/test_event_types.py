"""
The types of events are true: what the triggers of dcm-ws init-db send fits them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dcm_ws.postgres.triggers import EVENTS as TRIGGERED
from dcm_ws.protocol.catalogue import EVENTS
from tests.cli.installing import init, sent
from tests.event_types import fits
from tests.integration.databases import PostgresServer

pytestmark = pytest.mark.integration

WRITES = {
    "task_lists": (
        "insert into task_lists (id) values ('t')",
        "update task_lists set request_id = 'r', name = 'n', wave_number = 2",
        "update task_lists set status = 'failed'",
        "update task_lists set status = 'completed', completed_at = now()",
    ),
    "subtasks": (
        "insert into subtasks (id) values ('s')",
        "update subtasks set task_list_id = 't', agent_type = 'x', agent_id = 'a', description = 'd', result = '[1]'",
        "update subtasks set status = 'running', result = '{\"n\": 1}'",
        "update subtasks set status = 'failed', result = 'null'",
        "update subtasks set status = 'completed', completed_at = 'infinity'",
    ),
    "agent_messages": (
        "insert into agent_messages (id) values ('m')",
        "update agent_messages set expires_at = now(), from_agent_id = 'a', to_agent_id = 'b', topic = 't',"
        " payload = '\"text\"'",
        # tables of other installations have this column
        "alter table agent_messages add read_at timestamptz;"
        "update agent_messages set read_at = now(), from_agent_id = 'c'",
    ),
    "sessions": (
        "insert into sessions (id) values ('s')",
        "update sessions set ended_at = now()",
    ),
}
"""
By table: what makes each of its events once.
"""


@pytest.fixture
def installed(fresh: PostgresServer, tmp_path: Path) -> PostgresServer:
    init(tmp_path, fresh)
    return fresh


def test_rows(installed: PostgresServer) -> None:
    """
    Each event of each table fits its type: with nulls, with values in all columns.  The type has these columns and no
    others.
    """
    for table, writes in WRITES.items():
        events = sent(installed, *writes)
        assert sorted(one["event"] for one in events) == sorted(TRIGGERED[table])
        payload = next(entry.payload for entry in EVENTS if entry.name == events[0]["event"])
        columns = {field.name for field in payload.fields if "row" in field.sources} - {"omitted", "truncated"}
        for one in events:
            data: dict[str, Any] = one["data"]
            data.pop("read_at", None)
            assert data.keys() == columns
            assert fits(one["event"], data, "row")


def test_rows_that_are_cut(installed: PostgresServer, tmp_path: Path) -> None:
    """
    What is left of a row with a large value, or of a large row, fits the type, too.
    """
    large = "insert into subtasks (id, description) values ('{}', repeat('x', 9000))"
    (event,) = sent(installed, large.format("a"))
    assert event["data"]["omitted"] == ["description"] and "description" not in event["data"]
    assert fits(event["event"], event["data"], "row")
    init(tmp_path, installed, "--include-column", "description")
    (event,) = sent(installed, large.format("b"))
    assert event["data"]["truncated"] is True and "created_at" not in event["data"]
    assert fits(event["event"], event["data"], "row")
