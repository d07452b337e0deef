"""
The trigger function that turns INSERTs and UPDATEs into events (protocol, section 7), and what may be chosen of them.

The SQL that installs it is in L{dcm_ws.postgres.install}.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from dcm_ws.postgres.schema import NAMES

VERSION = 3
"""
Raised with each change of the function or of the triggers.
"""

MARK = "dcm-ws triggers, version"
"""
The comment on the function starts with it; the version follows.
"""

EVENTS = {
    "task_lists": ("task.created", "task.updated", "task.completed", "task.failed"),
    "subtasks": ("subtask.created", "subtask.updated", "subtask.running", "subtask.completed", "subtask.failed"),
    "agent_messages": ("message.new", "message.read", "message.expired"),
    "sessions": ("session.created", "session.ended"),
}
"""
The events that the triggers of each table send.
"""

PAYLOAD_MAX = 7999
"""
Bytes of a payload that NOTIFY accepts.
"""

VALUE_MAX = 500
"""
Bytes of a column's value, as JSON; a longer one is left out unless the column was named to be included.
"""

CHANNEL_MAX = 300
"""
Bytes of a channel; an event for a longer one goes to C{global}.
"""


class ChoiceError(ValueError):
    """
    There is no such table, event or column.
    """


@dataclass(frozen=True, slots=True)
class Choice:
    """
    What C{init-db} is asked to install.

    @ivar tables: the tables that are created if missing and get triggers.
    @ivar events: the events that are sent; empty for all.
    @ivar exclude: columns, or C{table.column}, that are never sent.
    @ivar include: columns, or C{table.column}, that are sent whatever their size.
    @ivar replicated: the triggers fire for rows that logical replication applies, too.
    """

    tables: tuple[str, ...] = NAMES
    events: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    replicated: bool = False

    def __post_init__(self) -> None:
        _check("table", self.tables, NAMES)
        _check("event", self.events, [event for events in EVENTS.values() for event in events])
        for column in (*self.exclude, *self.include):
            table, dot, _ = column.rpartition(".")
            if dot:
                _check("table", (table,), list(EVENTS))
            if not column.rpartition(".")[2] or not column.isprintable() or set(column) & set("\"'\\"):
                raise ChoiceError(f"{column!r} is not the name of a column")

    @property
    def triggered(self) -> tuple[str, ...]:
        """
        The tables that get triggers: those with an event that was chosen.
        """
        return tuple(
            table
            for table, events in EVENTS.items()
            if table in self.tables and (not self.events or set(self.events) & set(events))
        )

    @property
    def argument(self) -> str | None:
        """
        What the triggers pass to the function, as JSON; None for a plain installation.
        """
        said = {name: value for name, value in asdict(self).items() if name != "replicated" and value}
        if self.tables == NAMES:
            del said["tables"]
        return json.dumps(said, ensure_ascii=False, sort_keys=True) if said else None


def _check(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise ChoiceError(f"there is no {kind} {name!r}: {hint}")


# Columns are read by name from JSON: a table of an older installation may lack some.
# An UPDATE that moves a row to another partition fires as a DELETE and an INSERT, one right after the other: the first
# leaves what the second compares with in a setting of the transaction, and a DELETE that is one takes that away at its
# end, when the statement's trigger fires.
# In the text of jsonb a string may hold anything, and outside strings only numbers have digits.
BODY = f"""
declare
    fresh jsonb;
    stale jsonb;
    sent jsonb;
    options jsonb;
    omitted jsonb;
    event text;
    channel text;
    stamp bigint;
    payload text;
begin
    if tg_op = 'DELETE' then
        if tg_level = 'STATEMENT' then
            perform set_config('dcm_ws.moved', '', true);
            return null;
        end if;
        stale := to_jsonb(old);
        perform set_config('dcm_ws.moved', jsonb_build_object(
            'table', tg_argv[0], 'at', statement_timestamp(), 'row', (
                select coalesce(jsonb_object_agg(key, value), '{{}}') from jsonb_each(stale)
                where key in ('id', 'status', 'ended_at', 'read_at', 'read_by', 'expires_at')))::text, true);
        return null;
    end if;
    -- not where they are declared: an error there would be the transaction's
    fresh := to_jsonb(new);
    options := coalesce(tg_argv[1]::jsonb, '{{}}');
    stamp := floor(extract(epoch from clock_timestamp()) * 1000);
    if tg_op = 'UPDATE' then
        stale := to_jsonb(old);
        if fresh = stale then
            return null;
        end if;
    elsif coalesce(current_setting('dcm_ws.moved', true), '') <> '' then
        sent := current_setting('dcm_ws.moved', true)::jsonb;
        if sent->>'table' = tg_argv[0] and sent->'at' = to_jsonb(statement_timestamp())
            and sent->'row'->'id' = fresh->'id' then
            stale := sent->'row';
            perform set_config('dcm_ws.moved', '', true);
        end if;
    end if;
    if tg_argv[0] = 'sessions' then
        channel := 'sessions/' || nullif(fresh->>'id', '');
        event := case
            when stale is null then 'session.created'
            when stale->>'ended_at' is null and fresh->>'ended_at' is not null then 'session.ended'
        end;
    elsif tg_argv[0] = 'agent_messages' then
        channel := coalesce('agents/' || nullif(fresh->>'to_agent_id', ''), 'topics/' || nullif(fresh->>'topic', ''));
        event := case
            when stale is null then 'message.new'
            when stale->>'read_at' is null and fresh->>'read_at' is not null then 'message.read'
            when jsonb_typeof(fresh->'read_by') = 'array'
                and not case when jsonb_typeof(stale->'read_by') = 'array' then stale->'read_by' else '[]' end
                    @> (fresh->'read_by') then 'message.read'
            when case when jsonb_typeof(fresh->'expires_at') = 'string' then
                (fresh->>'expires_at')::timestamptz <= now()
                and ((stale->>'expires_at')::timestamptz > now() or stale->>'expires_at' is null)
            end then 'message.expired'
        end;
    else
        channel := 'agents/' || nullif(fresh->>'agent_id', '');
        event := case tg_argv[0] when 'task_lists' then 'task.' else 'subtask.' end || case
            when stale is null then 'created'
            when fresh->>'status' is distinct from stale->>'status' and (
                fresh->>'status' in ('completed', 'failed')
                or (fresh->>'status' = 'running' and tg_argv[0] = 'subtasks')) then fresh->>'status'
            else 'updated'
        end;
    end if;
    if event is null or not coalesce(options->'events' ? event, true) then
        return null;
    end if;
    if channel is null or octet_length(channel) > {CHANNEL_MAX} then
        channel := 'global';
    end if;
    sent := fresh;
    if options ? 'exclude' or octet_length(fresh::text) > {VALUE_MAX} then
        select coalesce(jsonb_object_agg(key, value) filter (where not large), '{{}}'),
            jsonb_agg(key order by key) filter (where large)
        into sent, omitted
        from (
            select key, value, octet_length(value::text) > {VALUE_MAX} and not coalesce(
                options->'include' ?| array[key, tg_argv[0] || '.' || key], false) as large
            from jsonb_each(fresh)
            where not coalesce(options->'exclude' ?| array[key, tg_argv[0] || '.' || key], false)) as columns;
        sent := sent || case when omitted is null then '{{}}' else jsonb_build_object('omitted', omitted) end;
    end if;
    for attempt in 1..3 loop
        payload := jsonb_build_object('channel', channel, 'event', event, 'data', sent, 'timestamp', stamp)::text;
        if payload ~ '[0-9]{{16}}' then
            -- numbers that JavaScript would round
            select string_agg(
                case when token[1] ~ '^-?[0-9]' and abs(token[1]::numeric) > 9007199254740991
                    then '"' || token[1] || '"' else token[1] end, '' order by place)
            into payload
            from regexp_matches(payload, E'"(?:[^"\\\\\\\\]|\\\\\\\\.)*"|-?[0-9][0-9.]*|[^"0-9-]+', 'g')
                with ordinality as found (token, place);
        end if;
        exit when octet_length(payload) <= {PAYLOAD_MAX};
        -- the keys, and then nothing
        select coalesce(jsonb_object_agg(key, value) filter (where attempt = 1), '{{}}') || '{{"truncated": true}}'
        into sent
        from jsonb_each(sent)
        where (key in ('id', 'status') or right(key, 3) = '_id') and octet_length(value::text) <= {VALUE_MAX};
    end loop;
    perform pg_notify('dcm_events', payload);
    return null;
exception when others then
    -- an event is not worth the transaction that it tells of
    raise warning 'dcm-ws: no event for this change of %: %', tg_table_name, sqlerrm;
    return null;
end
"""
