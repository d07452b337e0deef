"""
The schema C{dcm_ws} of the durable log: its versions, and the SQL that installs, migrates and removes it.

A change of the tables is a new step C{sql/log/N.sql}.  Steps that a release contained are never edited.  The functions
always have the form that this release needs, and are replaced where they differ.

Nodes of the minor version before go on while a step is applied, with the sessions that they have (docs/cluster.md,
Upgrades): a step must leave their statements working, so it adds, and what it replaces is dropped by a later release.
"""

from __future__ import annotations

from collections.abc import Iterable

from dcm_ws.postgres.install import TRUSTED, WRITABLE, names
from dcm_ws.postgres.statements import literal, statement
from dcm_ws.protocol.channels import IDENTIFIER_RULE
from dcm_ws.protocol.events import EVENT_RULE

STEPS = (statement("log/1"), statement("log/2"), statement("log/3"), statement("log/4"))
"""
The steps in their order; the version of the schema is the number of steps.
"""

VERSION = len(STEPS)
"""
The version of the schema that this release uses.
"""

MARK = "dcm-ws log, version"
"""
The beginning of the comment on the schema; the version follows.
"""

_SURROGATES = statement("log/surrogates")
_PUBLISH = {
    "text": ("text default 'null'", statement("log/json") + "\n" + _SURROGATES),
    "json": ("json", _SURROGATES),
    # it has decoded all escapes
    "jsonb": ("jsonb", ""),
}
_OPEN = {
    **{
        f"dcm_ws.publish(text,text,{kind},text)": statement("log/publish", data=data, checks=checks)
        for kind, (data, checks) in _PUBLISH.items()
    },
    "dcm_ws.head()": statement("log/head"),
    "dcm_ws.in_use()": statement("log/in_use"),
}
_OWN = {
    "dcm_ws.check_data(text)": statement("log/check_data"),
    "dcm_ws.check_size(integer)": statement("log/check_size"),
    "dcm_ws.check_names(text,text)": statement(
        "log/check_names", event_rule=EVENT_RULE, identifier_rule=IDENTIFIER_RULE
    ),
    "dcm_ws.known(text,bigint)": statement("log/known"),
    "dcm_ws.new_epoch()": statement("log/new_epoch"),
    "dcm_ws.redrive(text,timestamp with time zone,timestamp with time zone,integer)": statement("log/redrive"),
    "dcm_ws.repaired(text)": statement("log/repaired"),
}
FUNCTIONS = {**_OWN, **_OPEN}
"""
The functions by signature, each with the SQL that creates it.
"""


_HOME = statement("log/owner", trusted=TRUSTED, mark=MARK)


def _role(name: str | None) -> str:
    return "null::name" if name is None else f"{literal(name)}::name"


def source(sql: str) -> str:
    """
    Returns the body of one of the L{FUNCTIONS}, as PostgreSQL keeps it.
    """
    return sql.split("$body$")[1]


def log_sql(owner: str | None = None, grantees: Iterable[str] = (), steps: Iterable[str] = STEPS) -> str:
    """
    Returns SQL that installs the schema, or migrates it; running it again changes nothing.

    It runs in one transaction that begins with L{dcm_ws.postgres.install.BEGIN}.  If the schema is of a newer version,
    or is not one of dcm-ws, it raises an exception and changes nothing.

    @param owner: the role that a new schema will belong to; None for the role that runs the SQL.
    @param grantees: the roles that may publish; C{public} is everybody.  Without any, nothing is changed, and everybody
        may publish in a new schema.
    @param steps: the SQL of each step.
    """
    steps = list(steps)
    return statement(
        "log/install",
        owner=_role(owner),
        grantees=names(sorted(set(grantees))),
        version=str(len(steps)),
        mark=MARK,
        steps="\n".join(
            f"if version < {number} then\nexecute $step${sql}$step$;\nend if;" for number, sql in enumerate(steps, 1)
        ),
        functions=",\n".join(f"({literal(name)}, $code${sql}$code$)" for name, sql in FUNCTIONS.items()),
        open=f"array[{', '.join(map(literal, _OPEN))}]",
        writable=WRITABLE,
        home=_HOME,
    )


def remove_log_sql(owner: str | None = None) -> str:
    """
    Returns SQL that removes the schema with all that is in it.

    It raises an exception if the schema is not one of dcm-ws, or if objects of others depend on it.

    @param owner: as in L{log_sql}.
    """
    return statement("log/remove", owner=_role(owner), writable=WRITABLE, home=_HOME)


CONTENTS = statement("log/contents")
"""
Selects one row with one JSON value: the numbers of events, states of agents and dead letters in the schema.
"""
