"""
Triggers that make events of plain INSERTs and UPDATEs (protocol, section 7), for a database that wants them.
"""

from __future__ import annotations

from dcm_ws.schema import TABLES

VERSION = 1
"""
Raised with each change to what is below.
"""

TRIGGERED = ("task_lists", "subtasks", "agent_messages", "sessions")
PAYLOAD_MAX = 7999
"""
Bytes of a payload that NOTIFY takes.
"""

_MARK = "dcm-ws triggers, version"

INSTALLED = "select obj_description(to_regprocedure('dcm_ws_notify()')::oid, 'pg_proc')"
"""
Asks for the comment that has the version of what is installed; null where nothing is.
"""

# columns are read by name from JSON: a table of an older installation may lack some
_FUNCTION = f"""
create or replace function dcm_ws_notify() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $dcm_ws$
declare
    fresh jsonb := to_jsonb(new);
    stale jsonb := case when tg_op = 'UPDATE' then to_jsonb(old) end;
    event text;
    channel text := 'global';
    stamp bigint := floor(extract(epoch from clock_timestamp()) * 1000);
    payload text;
begin
    if fresh = stale then
        return null;
    end if;
    if tg_argv[0] = 'sessions' then
        channel := 'sessions/' || (fresh->>'id');
        event := case
            when tg_op = 'INSERT' then 'session.created'
            when stale->>'ended_at' is null and fresh->>'ended_at' is not null then 'session.ended'
        end;
    elsif tg_argv[0] = 'agent_messages' then
        channel := coalesce('agents/' || (fresh->>'to_agent_id'), 'topics/' || (fresh->>'topic'), 'global');
        event := case
            when tg_op = 'INSERT' then 'message.new'
            when stale->>'read_at' is null and fresh->>'read_at' is not null then 'message.read'
            when (fresh->>'expires_at')::timestamptz <= now()
                and ((stale->>'expires_at')::timestamptz > now() or stale->>'expires_at' is null)
                then 'message.expired'
        end;
    else
        channel := coalesce('agents/' || (fresh->>'agent_id'), 'global');
        event := case tg_argv[0] when 'task_lists' then 'task.' else 'subtask.' end || case
            when tg_op = 'INSERT' then 'created'
            when fresh->>'status' is distinct from stale->>'status' and (
                fresh->>'status' in ('completed', 'failed')
                or (fresh->>'status' = 'running' and tg_argv[0] = 'subtasks')) then fresh->>'status'
            else 'updated'
        end;
    end if;
    if event is null then
        return null;
    end if;
    payload := jsonb_build_object('channel', channel, 'event', event, 'data', fresh, 'timestamp', stamp)::text;
    if octet_length(payload) > {PAYLOAD_MAX} then
        select coalesce(jsonb_object_agg(key, value), '{{}}') || '{{"truncated": true}}' into fresh
        from jsonb_each(fresh)
        where (key = 'id' or key = 'status' or key like '%\\_id') and octet_length(value::text) <= 500;
        if octet_length(channel) > 300 then
            channel := 'global';
        end if;
        payload := jsonb_build_object('channel', channel, 'event', event, 'data', fresh, 'timestamp', stamp)::text;
        if octet_length(payload) > {PAYLOAD_MAX} then
            payload := jsonb_build_object(
                'channel', channel, 'event', event, 'data', '{{"truncated": true}}'::jsonb, 'timestamp', stamp)::text;
        end if;
    end if;
    perform pg_notify('dcm_events', payload);
    return null;
exception when others then
    -- an event is not worth the transaction that it tells of
    raise warning 'dcm-ws: no event for this change of %: %', tg_table_name, sqlerrm;
    return null;
end
$dcm_ws$;
comment on function dcm_ws_notify() is '{_MARK} {VERSION}';
"""


def _drop(table: str) -> str:
    return f"""
do $dcm_ws$ begin
    if to_regclass('{table}') is not null then
        drop trigger if exists dcm_ws_notify on {table};
    end if;
end $dcm_ws$;"""


def install_sql() -> str:
    """
    What makes the tables that are missing, and the triggers; running it again changes nothing.
    """
    triggers = "".join(
        f"""
drop trigger if exists dcm_ws_notify on {table};
create trigger dcm_ws_notify after insert or update on {table}
    for each row execute function dcm_ws_notify('{table}');"""
        for table in TRIGGERED
    )
    return f"{TABLES}{_FUNCTION}{triggers}\n"


def remove_sql() -> str:
    """
    What takes the triggers away, and leaves the tables.
    """
    drops = "".join(_drop(table) for table in TRIGGERED)
    return f"{drops.lstrip()}\ndrop function if exists dcm_ws_notify();\n"


def version_of(comment: str | None) -> int:
    """
    The version that L{INSTALLED} tells of; 0 for none.
    """
    number = comment.removeprefix(_MARK).strip() if comment and comment.startswith(_MARK) else ""
    return int(number) if number.isdigit() else 0
