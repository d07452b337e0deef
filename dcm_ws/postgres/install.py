"""
The SQL of C{dcm-ws init-db}: it creates the tables and the triggers, removes the triggers, and finds what is there.

Other roles may create objects in the same schemas.  So nothing is found by an unqualified name: L{BEGIN} notes the
search path and leaves only C{pg_catalog} in it, and each object of our names must belong to a role that may change it
anyway: the role that installs it, a superuser, or the owner of all the tables.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from dcm_ws.postgres.schema import DEFINITIONS, NAMES
from dcm_ws.postgres.triggers import BODY, EVENTS, MARK, VERSION, Choice

BEGIN = """set local lock_timeout = '5s';
set local standard_conforming_strings = on;
do $dcm_ws$ begin
    if pg_catalog.current_setting('search_path') <> 'pg_catalog, pg_temp' then
        perform pg_catalog.set_config('dcm_ws.schemas', pg_catalog.current_schemas(false)::pg_catalog.text, true);
        perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    end if;
end $dcm_ws$;
"""
"""
Begins each transaction here.  Every later writer waits behind one that waits for a lock on a table, so it must not wait
for long.
"""


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _names(names: tuple[str, ...]) -> str:
    return f"array[{', '.join(map(_text, names))}]::name[]"


# the tables of our names that the search path found, and the functions of our name that it found or that a trigger uses
_FOUND = f"""path as (
    select s.name, s.place, n.oid, n.nspowner as owner
    from unnest(current_setting('dcm_ws.schemas')::name[]) with ordinality as s (name, place)
        join pg_namespace n on n.nspname = s.name
    where s.name !~ '^pg_temp'
), named as (
    select c.oid, c.relname as name, c.relkind as kind, c.relowner as owner, path.name as schema,
        row_number() over (partition by c.relname order by path.place) as place
    from path join pg_class c on c.relnamespace = path.oid
    where c.relname = any ({_names(NAMES)}) and c.relkind in ('r', 'p', 'v', 'm', 'f')
), ours as (
    select * from named where place = 1
), functions as (
    select p.oid, p.proowner as owner, n.nspname as schema, p.prosrc as source, p.xmin::text as written,
        obj_description(p.oid, 'pg_proc') as comment,
        coalesce((select place from path where path.oid = p.pronamespace), 1000) as place
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where p.proname = 'dcm_ws_notify' and p.pronargs = 0 and (
        p.pronamespace in (select oid from path)
        or p.oid in (select t.tgfoid from pg_trigger t join ours on t.tgrelid = ours.oid))
)"""

# who may change what we install anyway
_TRUSTED = """r.rolsuper or r.rolname = current_user or (
    pg_has_role(r.oid, 'usage') and not (select rolsuper from pg_roles where rolname = current_user))"""

_WRITABLE = """    if current_setting('transaction_read_only')::boolean then
        raise exception 'the server is read-only (a standby?)' using hint = 'connect to the primary server';
    end if;
"""

_OWN_HOME = """            perform 1 from pg_namespace n where n.nspname = home
                and (n.nspowner = any (trusted) or pg_get_userbyid(n.nspowner) = 'pg_database_owner');
            if not found then
                raise exception 'the schema % belongs to somebody else', home
                    using hint = 'set the search path to a schema of your own';
            end if;
"""

INSTALLED = f"""
with {_FOUND}
select json_build_object(
    'functions', (select coalesce(json_agg(json_build_object(
        'name', format('%I.dcm_ws_notify()', schema), 'owner', pg_get_userbyid(owner), 'source', source,
        'comment', comment, 'written', written,
        'trusted', (select {_TRUSTED} from pg_roles r where r.oid = functions.owner) or (
            select bool_and(c.relowner = functions.owner)
            from pg_trigger t join pg_class c on c.oid = t.tgrelid where t.tgfoid = functions.oid)
    ) order by place), '[]') from functions),
    'tables', (select coalesce(json_object_agg(ours.name, json_build_object(
        'name', format('%I.%I', schema, ours.name), 'owner', pg_get_userbyid(owner),
        'subscribed', exists (select from pg_subscription_rel s
            where s.srrelid = ours.oid or s.srrelid in (select relid from pg_partition_tree(ours.oid))),
        'triggers', (select coalesce(json_agg(json_build_object(
            'oid', t.oid, 'enabled', t.tgenabled, 'arguments', encode(t.tgargs, 'hex'))), '[]')
            from pg_trigger t
            where (t.tgrelid = ours.oid or t.tgrelid in (select relid from pg_partition_tree(ours.oid)))
                and t.tgfoid in (select oid from functions) and t.tgtype::int & 1 = 1)
    )), '{{}}') from ours))
"""
"""
Asks for one row with one JSON value, which L{Installed} is made of.  It needs what L{BEGIN} does.
"""


class Installed(NamedTuple):
    """
    What is in a database.

    @ivar functions: those of our name, the one in use first.
    @ivar tables: the tables that there are, by name, each with its triggers.
    """

    functions: list[dict[str, Any]]
    tables: dict[str, dict[str, Any]]

    @property
    def version(self) -> int:
        """
        The version of the function; 0 without one.
        """
        comment = (self.functions[0]["comment"] or "") if self.functions else ""
        number = comment.removeprefix(MARK).strip() if comment.startswith(MARK) else ""
        return int(number) if number.isdigit() else 0

    @property
    def altered(self) -> bool:
        """
        Whether somebody changed the function since it was installed.
        """
        return self.version == VERSION and self.functions[0]["source"] != BODY

    @property
    def foreign(self) -> dict[str, str]:
        """
        Functions of our name that others could change, each with its owner.
        """
        return {function["name"]: function["owner"] for function in self.functions if not function["trusted"]}

    @property
    def absent(self) -> list[str]:
        """
        The tables that there are not.
        """
        return [name for name in NAMES if name not in self.tables]

    @property
    def bare(self) -> list[str]:
        """
        The tables without the trigger that was chosen for them.
        """
        chosen = self._chosen()
        return [name for name in chosen if name in self.tables and not self.tables[name]["triggers"]]

    def enabled(self, states: str) -> list[str]:
        """
        The tables with a trigger in one of these states of C{pg_trigger.tgenabled}.
        """
        return [
            name
            for name, table in self.tables.items()
            if any(trigger["enabled"] in states for trigger in table["triggers"])
        ]

    @property
    def unreplicated(self) -> list[str]:
        """
        The tables that logical replication writes to without firing their trigger.
        """
        return [name for name in self.enabled("O") if self.tables[name]["subscribed"]]

    def _chosen(self) -> tuple[str, ...]:
        for table in self.tables.values():
            for trigger in table["triggers"]:
                arguments = bytes.fromhex(trigger["arguments"]).split(b"\0")
                if len(arguments) > 2:
                    said = json.loads(arguments[1])
                    return Choice(tuple(said.get("tables", NAMES)), tuple(said.get("events", ()))).triggered
        return tuple(EVENTS)


_INSTALL = f"""
do $init$
declare
    wanted name[] := @tables@;
    triggered name[] := @triggered@;
    firing "char" := '@firing@';
    code text := $source${BODY}$source$;
    definitions jsonb := {_text(json.dumps(DEFINITIONS))};
    home name;
    target text;
    used oid;
    trusted oid[];
    arguments text;
    expected bytea;
    one record;
    clone record;
begin
{_WRITABLE}    trusted := array(select r.oid from pg_roles r where {_TRUSTED});
    -- one owner of all the tables there are could change each of them anyway
    trusted := trusted || array(
        with {_FOUND} select max(owner::text)::oid from ours where name = any (wanted)
        having count(*) = cardinality(wanted) and count(distinct owner) = 1);

    with {_FOUND} select path.* into one from path order by place limit 1;
    home := one.name;
    if home is null then
        raise exception 'no schema of the search path exists';
    end if;

    for one in with {_FOUND} select * from ours where name = any (wanted) loop
        if one.kind not in ('r', 'p') then
            raise exception '%.% is not a table', one.schema, one.name
                using hint = 'rename it, or choose the tables with --table';
        elsif one.owner <> all (trusted) then
            raise exception 'the table %.% belongs to %', one.schema, one.name, pg_get_userbyid(one.owner) using
                hint = format('run init-db as that role, or take the schema %I out of the search path', one.schema);
        elsif not pg_has_role(one.owner, 'usage') then
            raise exception 'the table %.% belongs to %, and % may not put triggers on it',
                one.schema, one.name, pg_get_userbyid(one.owner), current_user
                using hint = 'run init-db as the owner of the tables';
        end if;
    end loop;
    for one in
        with {_FOUND} select named.*, ours.schema as nearer from named join ours using (name)
        where named.place > 1 and named.owner <> ours.owner and name = any (wanted)
    loop
        raise exception 'two tables are called %: %.% hides that of %, in the schema %',
            one.name, one.nearer, one.name, pg_get_userbyid(one.owner), one.schema
            using hint = 'set the search path to the schema of the tables';
    end loop;
    for one in with {_FOUND} select * from functions where owner <> all (trusted) loop
        raise exception 'the function %.dcm_ws_notify() belongs to %, who could change what it does',
            one.schema, pg_get_userbyid(one.owner) using hint = 'drop it, and run init-db again';
    end loop;
    for one in
        with {_FOUND} select ours.schema, ours.name, t.tgname, t.tgfoid::regprocedure as function
        from pg_trigger t join ours on ours.oid = t.tgrelid
        where t.tgname in ('dcm_ws_notify', 'dcm_ws_deleted') and ours.name = any (wanted)
            and t.tgfoid not in (select oid from functions)
    loop
        raise exception 'the trigger % on %.% is not one of dcm-ws: it calls %',
            one.tgname, one.schema, one.name, one.function using hint = 'rename it, or drop it';
    end loop;

    for one in with {_FOUND} select * from unnest(wanted) as w (name) where w.name not in (select name from ours) loop
        if one.name = any ({_names(NAMES)}) then
{_OWN_HOME}            execute replace(definitions->>(one.name::text), '{{table}}', format('%I.%I', home, one.name));
        end if;
    end loop;

    with {_FOUND} select f.* into one from functions f order by place limit 1;
    target := format('%I.dcm_ws_notify()', coalesce(one.schema, home));
    if substring(one.comment from '^{MARK} ([0-9]{{1,9}})$')::int > {VERSION} then
        raise exception 'the triggers that are installed are of %', substring(one.comment from 'version.*')
            using hint = 'use the newer dcm-ws that installed them';
    end if;
    if one.source is distinct from code or one.comment is distinct from '{MARK} {VERSION}' then
        if one.schema is null then
{_OWN_HOME}        end if;
        execute case when one.schema is null then 'create' else 'create or replace' end || ' function ' || target
            || ' returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $source$'
            || code || '$source$';
        execute format('comment on function %s is %L', target, '{MARK} {VERSION}');
        execute format('revoke all on function %s from public', target);
    end if;
    used := target::regprocedure;
    for one in with {_FOUND} select distinct pg_get_userbyid(owner) as name from ours where name = any (triggered)
        and not has_function_privilege(owner, used, 'execute') loop
        execute format('grant execute on function %s to %I', target, one.name);
    end loop;

    -- the triggers of tables that were not chosen
    for one in
        with {_FOUND} select t.tgname as name, format('%I.%I', f.schema, f.name) as place
        from pg_trigger t join ours f on f.oid = t.tgrelid join functions on functions.oid = t.tgfoid
        where f.name <> all (triggered) and t.tgparentid = 0
    loop
        execute format('drop trigger %I on %s', one.name, one.place);
    end loop;
    for one in with {_FOUND}
        select f.*, format('%I.%I', f.schema, f.name) as label from ours f where f.name = any (triggered)
    loop
        arguments := quote_literal(one.name) || coalesce(', ' || quote_literal(@argument@), '');
        expected := convert_to(one.name, getdatabaseencoding()) || '\\x00'::bytea
            || coalesce(convert_to(@argument@, getdatabaseencoding()) || '\\x00'::bytea, ''::bytea);
        -- 5 is an INSERT for each row, 16 an UPDATE, 8 a DELETE
        perform 1 from pg_trigger t where t.tgrelid = one.oid and t.tgfoid = used and t.tgargs = expected
            and t.tgtype = case one.kind when 'p' then 29 else 21 end;
        if not found then
            for clone in select tgname from pg_trigger t where t.tgrelid = one.oid and t.tgparentid = 0
                and (t.tgfoid = used or t.tgname in ('dcm_ws_notify', 'dcm_ws_deleted'))
            loop
                execute format('drop trigger %I on %s', clone.tgname, one.label);
            end loop;
            execute format('create trigger dcm_ws_notify after insert or update %son %s for each row'
                ' execute function %s(%s)', case one.kind when 'p' then 'or delete ' end, one.label,
                rtrim(target, '()'), arguments);
            if one.kind = 'p' then
                execute format('create trigger dcm_ws_deleted after delete on %s for each statement'
                    ' execute function %s(%s)', one.label, rtrim(target, '()'), arguments);
            end if;
        end if;
        -- PostgreSQL up to 14 does not do it for the partitions by itself
        for clone in
            with recursive family as (
                select oid, tgname, tgrelid, tgenabled from pg_trigger where tgrelid = one.oid and tgfoid = used
                union all
                select t.oid, t.tgname, t.tgrelid, t.tgenabled
                from pg_trigger t join family on t.tgparentid = family.oid)
            select tgname, tgrelid::regclass as place from family where tgenabled <> firing
        loop
            execute format('alter table %s enable %s trigger %I', clone.place,
                case firing when 'A' then 'always' end, clone.tgname);
        end loop;
    end loop;

    -- what others did in the meantime
    perform 1 from pg_proc p where p.oid = used and (p.proowner <> all (trusted) or p.prosrc <> code);
    if found then
        raise exception 'somebody changed % while it was installed', target;
    end if;
end $init$;
"""

_REMOVE = f"""
do $dcm_ws$
declare
    marked oid[];
    one record;
begin
{_WRITABLE}    with {_FOUND} select coalesce(array_agg(oid), '{{}}') into marked
        from functions where comment like '{MARK} %';
    for one in with {_FOUND} select * from functions where oid <> all (marked) loop
        raise exception 'the function %.dcm_ws_notify() is not one of dcm-ws; it belongs to %',
            one.schema, pg_get_userbyid(one.owner) using hint = 'drop it, or rename it';
    end loop;
    -- wherever the tables are by now, and whatever they are called
    for one in
        select t.tgname as name, t.tgrelid::regclass as place from pg_trigger t
        -- that of a partition goes with that of the whole
        where t.tgfoid = any (marked) and t.tgparentid = 0
    loop
        execute format('drop trigger %I on %s', one.name, one.place);
    end loop;
    for one in select f::regprocedure as name from unnest(marked) as f loop
        execute format('drop function %s', one.name);
    end loop;
end $dcm_ws$;
"""


def install_sql(choice: Choice) -> str:
    """
    What creates the missing tables, and the triggers; running it again changes nothing.

    It raises an exception, and so changes nothing, if an object of one of our names belongs to somebody else.
    """
    return (
        _INSTALL.replace("@tables@", _names(choice.tables))
        .replace("@triggered@", _names(choice.triggered))
        .replace("@firing@", "A" if choice.replicated else "O")
        .replace("@argument@", "null::text" if choice.argument is None else _text(choice.argument))
    )


def remove_sql() -> str:
    """
    What removes the triggers, and leaves the tables.
    """
    return _REMOVE


def in_transaction(sql: str) -> str:
    """
    The same for people, who may run it statement by statement.
    """
    return f"begin;\n{BEGIN}{sql.strip()}\ncommit;\n"
