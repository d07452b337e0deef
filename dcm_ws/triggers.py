"""
Triggers that make events of plain INSERTs and UPDATEs (protocol, section 7), for a database that wants them.
"""

from __future__ import annotations

from typing import NamedTuple

from dcm_ws.schema import NAMES, TABLES

VERSION = 2
"""
Raised with each change to what is below.
"""

TRIGGERED = ("task_lists", "subtasks", "agent_messages", "sessions")
PAYLOAD_MAX = 7999
"""
Bytes of a payload that NOTIFY takes.
"""

LOCK_TIMEOUT = "set local lock_timeout = '5s'"
"""
What waits for a table makes every later writer wait behind it: it had better give up.
"""

_MARK = "dcm-ws triggers, version"


def _list(names: tuple[str, ...]) -> str:
    return f"array[{', '.join(repr(name) for name in names)}]"


# what the search path finds, and what the tables use, though it be elsewhere
_OURS = f"""
    select p.oid from pg_proc p
    where p.proname = 'dcm_ws_notify' and p.pronargs = 0 and (
        p.oid = to_regprocedure('dcm_ws_notify()')
        or exists (
            select from pg_trigger t join unnest({_list(TRIGGERED)}) as known (name) on t.tgrelid = to_regclass(name)
            where t.tgfoid = p.oid))"""

INSTALLED = f"""
with used as (
    select p.oid, quote_ident(n.nspname) as schema
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where p.oid in ({_OURS})
    order by coalesce(p.oid = to_regprocedure('dcm_ws_notify()'), false) desc
    limit 1
)
select
    (select schema from used),
    (select obj_description(oid, 'pg_proc') from used),
    array(select name from unnest({_list(NAMES)}) as known (name) where to_regclass(name) is null),
    array(
        select name from unnest({_list(TRIGGERED)}) as known (name)
        where to_regclass(name) is not null and not exists (
            select from pg_trigger t join used on t.tgfoid = used.oid where t.tgrelid = to_regclass(name)))
"""
"""
Asks for one row, which L{Installed} is made of.
"""


class Installed(NamedTuple):
    """
    What is in a database.

    @ivar schema: where the function is, quoted; None where there is none.
    @ivar comment: the function's, which has its version.
    @ivar absent: the tables that there are not.
    @ivar bare: the tables without their trigger.
    """

    schema: str | None
    comment: str | None
    absent: list[str]
    bare: list[str]

    @property
    def version(self) -> int:
        """
        0 for none.
        """
        comment = self.comment or ""
        number = comment.removeprefix(_MARK).strip() if comment.startswith(_MARK) else ""
        return int(number) if number.isdigit() else 0

    @property
    def lacking(self) -> list[str]:
        """
        The tables for which something is to be made.
        """
        return [name for name in NAMES if name in self.absent or name in self.bare]


# columns are read by name from JSON: a table of an older installation may lack some
_BODY = f"""returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $dcm_ws$
declare
    fresh jsonb;
    stale jsonb;
    event text;
    channel text;
    stamp bigint;
    payload text;
begin
    -- not where they are declared: an error there would be the transaction's
    fresh := to_jsonb(new);
    stale := case when tg_op = 'UPDATE' then to_jsonb(old) end;
    stamp := floor(extract(epoch from clock_timestamp()) * 1000);
    if fresh = stale then
        return null;
    end if;
    if tg_argv[0] = 'sessions' then
        channel := coalesce('sessions/' || nullif(fresh->>'id', ''), 'global');
        event := case
            when tg_op = 'INSERT' then 'session.created'
            when stale->>'ended_at' is null and fresh->>'ended_at' is not null then 'session.ended'
        end;
    elsif tg_argv[0] = 'agent_messages' then
        channel := coalesce(
            'agents/' || nullif(fresh->>'to_agent_id', ''), 'topics/' || nullif(fresh->>'topic', ''), 'global');
        event := case
            when tg_op = 'INSERT' then 'message.new'
            when stale->>'read_at' is null and fresh->>'read_at' is not null then 'message.read'
            when case when jsonb_typeof(fresh->'expires_at') = 'string' then
                (fresh->>'expires_at')::timestamptz <= now()
                and ((stale->>'expires_at')::timestamptz > now() or stale->>'expires_at' is null)
            end then 'message.expired'
        end;
    else
        channel := coalesce('agents/' || nullif(fresh->>'agent_id', ''), 'global');
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
$dcm_ws$;"""


_REMOVE = f"""
do $dcm_ws$
declare
    ours oid[] := array({_OURS});
    found record;
begin
    -- wherever the tables are by now, and whatever they are called
    for found in
        select t.tgname as name, t.tgrelid::regclass as place from pg_trigger t
        where t.tgfoid = any (ours) and not t.tgisinternal
            -- a partition's goes with that of the whole
            and not exists (
                select from pg_depend d
                where d.classid = 'pg_trigger'::regclass and d.objid = t.oid and d.refclassid = d.classid)
    loop
        execute format('drop trigger %I on %s', found.name, found.place);
    end loop;
    for found in select one::regprocedure as name from unnest(ours) as one loop
        execute format('drop function %s', found.name);
    end loop;
end $dcm_ws$;
"""


def _trigger(table: str, function: str) -> str:
    return f"""
do $dcm_ws$ begin
    if not exists (
        select from pg_trigger where tgrelid = to_regclass('{table}') and tgfoid = to_regprocedure('{function}')
    ) then
        drop trigger if exists dcm_ws_notify on {table};
        create trigger dcm_ws_notify after insert or update on {table}
            for each row execute function {function[:-2]}('{table}');
    end if;
end $dcm_ws$;"""


def install_sql(schema: str | None = None) -> str:
    """
    What makes the tables that are missing, and the triggers; running it again changes nothing.

    @param schema: where the function is, or will be, quoted; None for the first of the search path.
    """
    function = f"{schema}.dcm_ws_notify()" if schema else "dcm_ws_notify()"
    triggers = "".join(_trigger(table, function) for table in TRIGGERED)
    return (
        f"{TABLES}\ncreate or replace function {function} {_BODY}"
        f"\ncomment on function {function} is '{_MARK} {VERSION}';{triggers}\n"
    )


def remove_sql() -> str:
    """
    What takes the triggers away, and leaves the tables.
    """
    return _REMOVE


def in_transaction(sql: str) -> str:
    """
    The same for people, who may run it statement by statement.
    """
    return f"begin;\n{LOCK_TIMEOUT};\n{sql.strip()}\ncommit;\n"
