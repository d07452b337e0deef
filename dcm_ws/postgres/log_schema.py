"""
Finds the schema C{dcm_ws} of the durable log in a database, and says if the service can use it.
"""

from __future__ import annotations

from hashlib import md5
from typing import Any, NamedTuple

from dcm_ws.postgres.install import TRUSTED
from dcm_ws.postgres.migrations import FUNCTIONS, MARK, VERSION, source
from dcm_ws.postgres.statements import statement

FIND = statement("log/find", mark=MARK, trusted=TRUSTED)
"""
Selects one row with one JSON value, which is passed to L{log_schema}.  The search path must be C{pg_catalog, pg_temp}.
"""

SERVER_MIN = 130_000
"""
The oldest server that can have the log, as in C{server_version_num}.
"""

ENCODINGS = ("UTF8",)
"""
The encodings of databases that can have the log.
"""

APPLY = "dcm-ws init-db --apply"

_DIGESTS = {name: md5(source(sql).encode()).hexdigest() for name, sql in FUNCTIONS.items()}


class LogSchema(NamedTuple):
    """
    The schema of the log, as the role that looked for it sees it.

    @ivar version: its version; 0 if there is none, or if it is not one of dcm-ws.
    @ivar owner: the role that it belongs to; empty if there is none.
    @ivar usable: the service can keep its log there.
    @ivar reason: why it is not usable; empty if it is.
    @ivar hint: what to do about it; may be empty.
    @ivar read_only: the only reason is that the server is read-only now, as a standby is.
    @ivar grantees: the roles that may publish, in the order of their names; C{public} is everybody.
    @ivar altered: functions that are missing, or that differ from those of this release.
    """

    version: int = 0
    owner: str = ""
    usable: bool = False
    reason: str = ""
    hint: str = ""
    read_only: bool = False
    grantees: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()


def log_schema(found: dict[str, Any]) -> LogSchema:
    """
    Judge what L{FIND} has found.
    """
    version, owner = found["version"] or 0, found["owner"] or ""
    functions = found["functions"] or {}
    reason, hint = _objection(found, version, owner)
    standby = not reason and found["read_only"]
    if standby:
        reason = "the server is read-only"
    return LogSchema(
        version,
        owner,
        usable=not reason,
        reason=reason,
        hint=hint,
        read_only=standby,
        grantees=tuple(found["grantees"] or ()),
        altered=tuple(name for name, digest in _DIGESTS.items() if functions.get(name) != digest) if version else (),
    )


def _objection(found: dict[str, Any], version: int, owner: str) -> tuple[str, str]:
    """
    Returns why the schema cannot be used, and what to do about it; empty texts if it can be used.
    """
    role = found["role"]
    if found["server"] < SERVER_MIN:
        return "the durable log needs PostgreSQL 13 or newer", "upgrade PostgreSQL"
    if found["encoding"] not in ENCODINGS:
        return f"the durable log needs a database in UTF8; this one is in {found['encoding']}", "use a database in UTF8"
    if not owner:
        return "the schema dcm_ws is not installed", APPLY
    if not version:
        return "the schema dcm_ws was not made by dcm-ws", "in psql: alter schema dcm_ws rename to another_name"
    if not found["member"]:
        return f"the schema dcm_ws belongs to {owner}, and {role} is not a member of it", f"grant {owner} to {role}"
    if not found["trusted"]:
        reason = f"the schema dcm_ws belongs to {owner}, who could change what dcm-ws does as the superuser {role}"
        return reason, f"connect dcm-ws as {owner}"
    if found["foreign"]:
        return f"dcm_ws.{found['foreign']} does not belong to {owner}, as the schema does", f"drop it; then {APPLY}"
    if version < VERSION:
        return f"the schema dcm_ws is of version {version}, and {VERSION} is needed", APPLY
    if version > VERSION:
        reason = f"the schema dcm_ws is of version {version}, and this dcm-ws knows versions up to {VERSION}"
        return reason, "use the newer dcm-ws that installed it"
    return "", ""
