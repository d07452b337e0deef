"""
The SQL in the files of C{sql/}, read by PostgreSQL itself.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from dcm_ws.postgres.figures import QUERIES, SCHEMAS, found, guarded, joined, relations, sql_of
from dcm_ws.postgres.install import BEGIN, INSTALLED, install_sql, remove_sql
from dcm_ws.postgres.log_schema import FIND
from dcm_ws.postgres.migrations import CONTENTS, FUNCTIONS, STEPS, log_sql, remove_log_sql
from dcm_ws.postgres.schema import TABLES
from dcm_ws.postgres.statements import literal, statement
from dcm_ws.postgres.triggers import BODY, Choice
from tests.integration.databases import PostgresServer

pytestmark = pytest.mark.integration

FOLDER = Path(str(files("dcm_ws.postgres").joinpath("sql")))
NAMES = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.sql"))


def statements(cursor: Any) -> Iterator[str]:
    """
    All SQL that is made of the files.  The caller runs each statement in C{cursor} before it takes the next.
    """
    # first, because BEGIN leaves only pg_catalog in the search path
    yield TABLES
    yield SCHEMAS
    schemas = cursor.fetchone()[0]
    # its rollback ends the settings of the guard
    yield "savepoint metrics"
    sql, parameters = relations(schemas)
    yield cursor.mogrify(guarded(sql, 5000), parameters).decode()
    tables = found(cursor.fetchall())
    yield guarded(joined({query: sql_of(query, tables) for query in QUERIES})[0], 5000)
    yield "rollback to metrics"
    yield BEGIN
    yield f"create function pg_temp.notify() returns trigger language plpgsql as $source${BODY}$source$"
    yield install_sql(Choice())
    yield INSTALLED
    yield remove_sql()
    yield from log_parts()
    yield log_sql()
    yield FIND
    yield from agent_statements(cursor)
    yield from engine_statements(cursor)
    yield from ledger_statements(cursor)
    yield CONTENTS
    yield remove_log_sql()


def log_parts() -> Iterator[str]:
    """
    What C{log_sql} executes: PostgreSQL reads it sooner than in the whole.
    """
    yield "savepoint parts"
    yield "create schema dcm_ws"
    yield from STEPS
    yield from FUNCTIONS.values()
    yield "rollback to parts"


def agent_statements(cursor: Any) -> Iterator[str]:
    """
    What reads and writes what agents are owed.
    """
    leads, chosen = statement("agents/leads").strip(), statement("agents/chosen")
    parts: dict[str, dict[str, str]] = {
        "connection": {},
        "session": {},
        "claim": {},
        "read_agents": {},
        "read_journal": {},
        "read_letters": {},
        "requests": {},
        "write": {"leads": leads, "letters": statement("agents/bury", right="leads")},
        "done": {"leads": leads},
        "disown": {"leads": leads},
        "checkpoint": {"leads": leads},
        "list": {"chosen": chosen, "data": "data", "unless": "true"},
        "request": {},
        "progress": {},
        "states_of": {},
        "changes_of": {},
        "letters_of": {},
        "waiting": {},
        "events_at": {},
        "has_leader": {},
        "records": {},
    }
    delivered = statement("agents/delivered", pos="%(pos)s", event_id="%(event_id)s")
    holds = statement("agents/holds", delivered=delivered).strip()
    shared = ("look", "take", "flush", "save", "give_back", "own_done", "other_requests", "fold", "expire")
    parts |= {key: {"holds": holds} for key in shared}
    parts["take"]["delivered"] = statement("agents/delivered", pos="given.pos", event_id="given.event_id")
    parts["flush"]["letters"] = statement("agents/bury", right="holds")
    parts |= {name: {} for name in ("letters", "lost", "owners_of", "own_requests", "left_journal", "left_agents")}
    texts = ("agent", "event_id", "epoch", "request")
    parameters: dict[str, object] = dict.fromkeys(texts, "")
    parameters |= {name: [] for name in ("agents", "event_ids", "reasons", "gone", "tracked", "positions", "rows")}
    parameters |= dict.fromkeys(("leader", "upto", "after", "most", "bytes"), 1)
    parameters |= dict.fromkeys(("node", "now", "keep", "keep_letters", "pos"), 1)
    parameters |= {"claims": "[]", "since": None, "until": None, "changes": "{}", "states": "{}"}
    parameters |= dict.fromkeys(("letters", "dropped", "places"), "[]")
    for name, marks in parts.items():
        yield cursor.mogrify(statement(f"agents/{name}", **marks), parameters | _AFTER.get(name, {})).decode()


def engine_statements(cursor: Any) -> Iterator[str]:
    """
    What numbers events, reads the log, and looks after its tables.
    """
    parameters: dict[str, object] = {
        "xmax": "3",
        "xip": "{}",
        "head": 0,
        "old": 0,
        "clients": "[]",
        "rows": 10,
        "bytes": 10,
        "depth": 10,
        "pos": 1,
        "after": 0,
        "most": 10,
        "positions": [1],
        "snapshot": "3:3:",
        "epoch": "e",
        "system": "1",
        "timeline": 1,
        "tell": False,
        "node": 1,
        "seconds": 1.0,
        "leader": False,
        "draining": False,
        "figures": "{}",
        "pid": 1,
        "waiting": "[]",
        "events": "[]",
    }
    parameters |= dict.fromkeys(("name", "host", "version", "address"), "")
    page = parameters | {"channels": ["topics/a"], "after": [0], "everything": 0}
    roll = {"newest": "log_1", "start": "minvalue", "end": "5", "next": "log_5"}
    yield "savepoint engine"
    for name in ("session", "prepare", "step", "place", "event_at", "opened", "take_over"):
        yield cursor.mogrify(statement(f"numbering/{name}"), parameters).decode()
    for name in ("after", "find"):
        yield cursor.mogrify(statement(f"reading/{name}"), parameters).decode()
    yield cursor.mogrify(statement("reading/page"), page).decode()
    for name in ("partitions", "inbox"):
        yield statement(f"upkeep/{name}")
    yield cursor.mogrify(statement("upkeep/roll", **roll), parameters).decode()
    for name in ("beat", "fence", "leave", "list", "register"):
        yield cursor.mogrify(statement(f"nodes/{name}"), parameters).decode()
    revoked = {"after": 0, "most": 10, "agent": "ann", "revoked_at": 1}
    for name in ("read", "save"):
        yield cursor.mogrify(statement(f"revoked/{name}"), revoked).decode()
    for name in ("again", "look", "publish", "renew"):
        yield cursor.mogrify(statement(f"following/{name}"), parameters).decode()
    yield statement("reading/session")
    yield "rollback to engine"


def ledger_statements(cursor: Any) -> Iterator[str]:
    """
    What writes and reads the ledger, and looks after its table.
    """
    leads = statement("agents/leads").strip()
    parameters: dict[str, object] = {"node": None, "uptos": [1], "firsts": [1], "entries": ["{}"], "event_id": ""}
    parameters |= {"leader": 1, "epoch": "", "pos": 1, "end": 5, "most": 1, "bytes": 1, "head": 4}
    yield "savepoint ledger"
    yield cursor.mogrify(statement("ledger/write", right="leads", sql=leads), parameters).decode()
    for name in ("find", "event"):
        yield cursor.mogrify(statement(f"ledger/{name}"), parameters).decode()
    yield statement("ledger/partitions")
    yield statement("ledger/begin_roll", newest="ledger_1")
    yield cursor.mogrify(statement("ledger/end", newest="ledger_1"), parameters).decode()
    yield statement("ledger/roll", newest="ledger_1", start="minvalue", end="5", next="ledger_5")
    yield "rollback to ledger"


_AFTER: dict[str, dict[str, object]] = {
    "read_agents": {"after": ""},
    "records": {"after": "", "agent": None},
    "look": {"agents": "[]"},
    "lost": {"agents": "[]"},
    "save": {"states": "[]", "gone": "[]"},
    "fold": {"states": "[]"},
}


def find(name: str, sql: str) -> re.Match[str] | None:
    """
    Find the text of a file in a statement; what replaced the marks is in groups.
    """
    parts = parts_of(name)
    # many times faster than the expression
    if not all(part in sql for part in parts):
        return None
    return re.compile("(.*?)".join(map(re.escape, parts)), re.S).search(sql)


@functools.cache
def parts_of(name: str) -> list[str]:
    """
    The text of a file between its marks.
    """
    text = re.sub(r"\A(?:--.*\n)+", "", (FOLDER / f"{name}.sql").read_text()).removesuffix("\n")
    if "%(" in text:
        text = text.replace("%%", "%")
    return re.split(r"@[a-z_]+@|%\([a-z_]+\)s", text)


def line_starts(match: re.Match[str]) -> Iterator[int]:
    """
    Where the file's own lines begin in the statement; the lines of other files in it are left out.
    """
    filled = [match.span(group) for group in range(1, len(match.groups()) + 1)]
    for line in re.finditer(r"^.*\S.*$", match[0], re.M):
        start = match.start() + line.start()
        if not any(begin <= start < end for begin, end in filled):
            yield start


# many times faster than to send each of them
ACCEPTED = """
create function pg_temp.accepted(statements text[]) returns text[] language plpgsql as $$
declare
    one text;
    accepted text[] := '{}';
begin
    foreach one in array statements loop
        begin
            execute one;
            accepted := accepted || one;
        exception when syntax_error then
        end;
    end loop;
    return accepted;
end $$
"""


def test_postgresql_finds_an_error_in_every_line_of_every_file(database: PostgresServer) -> None:
    """
    All statements run.  With a closing parenthesis at the beginning of any line of any file, PostgreSQL reports a
    syntax error: also in branches of PL/pgSQL that are not reached.
    """
    planted = dict.fromkeys(NAMES, 0)
    with contextlib.closing(psycopg2.connect(database.url)) as connection:
        cursor = connection.cursor()
        cursor.execute(ACCEPTED)
        for sql in statements(cursor):
            wrong = []
            for name in (name for name in NAMES if not planted[name]):
                match = find(name, sql)
                found = [f"{sql[:start]}) {sql[start:]}" for start in line_starts(match)] if match else []
                planted[name] = len(found)
                wrong += found
            if wrong:
                cursor.execute("select pg_temp.accepted(%s)", [wrong])
                assert cursor.fetchone() == ([],)
            cursor.execute(sql)
    assert [name for name, lines in planted.items() if lines == 0] == []


def test_marks() -> None:
    """
    Each mark must be given, and each given part must have its mark.
    """
    assert statement("metrics/open_sessions", sessions="a.b").splitlines()[1] == "from a.b"
    with pytest.raises(KeyError, match="sessions"):
        statement("metrics/open_sessions")
    with pytest.raises(ValueError, match=r"open_sessions\.sql has no mark a, b"):
        statement("metrics/open_sessions", sessions="a.b", b="", a="")


def test_literal(database: PostgresServer) -> None:
    """
    A literal is the string that it was made of.
    """
    text = "O'Neill \\' %s @mark@ \u00fc"
    assert database.execute(f"select {literal(text)}".replace("%", "%%")) == [(text,)]
