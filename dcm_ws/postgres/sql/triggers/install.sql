-- Creates the missing tables, the function and the triggers.  If all of them exist, it changes nothing.
-- An object of one of our names that belongs to somebody else is an error.
do $init$
declare
    wanted name[] := @tables@;
    triggered name[] := @triggered@;
    firing "char" := '@firing@';
    code text := $source$@body@$source$;
    definitions jsonb := @definitions@;
    home name;
    target text;
    used oid;
    trusted oid[];
    arguments text;
    expected bytea;
    one record;
    clone record;
begin
@writable@
    trusted := array(select r.oid from pg_roles r where @trusted@);
    -- a single owner of all existing tables could change each of them anyway
    trusted := trusted || array(
        with @found@ select max(owner::text)::oid from ours where name = any (wanted)
        having count(*) = cardinality(wanted) and count(distinct owner) = 1);

    with @found@ select path.* into one from path order by place limit 1;
    home := one.name;
    if home is null then
        raise exception 'no schema of the search path exists';
    end if;

    for one in with @found@ select * from ours where name = any (wanted) loop
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
        with @found@ select named.*, ours.schema as nearer from named join ours using (name)
        where named.place > 1 and named.owner <> ours.owner and name = any (wanted)
    loop
        raise exception 'two tables are called %: %.% hides that of %, in the schema %',
            one.name, one.nearer, one.name, pg_get_userbyid(one.owner), one.schema
            using hint = 'set the search path to the schema of the tables';
    end loop;
    for one in with @found@ select * from functions where owner <> all (trusted) loop
        raise exception 'the function %.dcm_ws_notify() belongs to %, who could change what it does',
            one.schema, pg_get_userbyid(one.owner) using hint = 'drop it, and run init-db again';
    end loop;
    for one in
        with @found@ select ours.schema, ours.name, t.tgname, t.tgfoid::regprocedure as function
        from pg_trigger t join ours on ours.oid = t.tgrelid
        where t.tgname in ('dcm_ws_notify', 'dcm_ws_deleted') and ours.name = any (wanted)
            and t.tgfoid not in (select oid from functions)
    loop
        raise exception 'the trigger % on %.% is not one of dcm-ws: it calls %',
            one.tgname, one.schema, one.name, one.function using hint = 'rename it, or drop it';
    end loop;

    for one in with @found@ select * from unnest(wanted) as w (name) where w.name not in (select name from ours) loop
        if one.name = any (@names@) then
@own_home@
            execute replace(definitions->>(one.name::text), '{table}', format('%I.%I', home, one.name));
        end if;
    end loop;

    with @found@ select f.* into one from functions f order by place limit 1;
    target := format('%I.dcm_ws_notify()', coalesce(one.schema, home));
    if substring(one.comment from '^@mark@ ([0-9]{1,9})$')::int > @version@ then
        raise exception 'the triggers that are installed are of %', substring(one.comment from 'version.*')
            using hint = 'use the newer dcm-ws that installed them';
    end if;
    if one.source is distinct from code or one.comment is distinct from '@mark@ @version@' then
        if one.schema is null then
@own_home@
        end if;
        execute case when one.schema is null then 'create' else 'create or replace' end || ' function ' || target
            || ' returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $source$'
            || code || '$source$';
        execute format('comment on function %s is %L', target, '@mark@ @version@');
        execute format('revoke all on function %s from public', target);
    end if;
    used := target::regprocedure;
    for one in with @found@ select distinct pg_get_userbyid(owner) as name from ours where name = any (triggered)
        and not has_function_privilege(owner, used, 'execute') loop
        execute format('grant execute on function %s to %I', target, one.name);
    end loop;

    -- the triggers of tables that were not chosen
    for one in
        with @found@ select t.tgname as name, format('%I.%I', f.schema, f.name) as place
        from pg_trigger t join ours f on f.oid = t.tgrelid join functions on functions.oid = t.tgfoid
        where f.name <> all (triggered) and t.tgparentid = 0
    loop
        execute format('drop trigger %I on %s', one.name, one.place);
    end loop;
    for one in with @found@
        select f.*, format('%I.%I', f.schema, f.name) as label from ours f where f.name = any (triggered)
    loop
        arguments := quote_literal(one.name) || coalesce(', ' || quote_literal(@argument@), '');
        expected := convert_to(one.name, getdatabaseencoding()) || '\x00'::bytea
            || coalesce(convert_to(@argument@, getdatabaseencoding()) || '\x00'::bytea, ''::bytea);
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
        -- PostgreSQL up to 14 does not enable the triggers of partitions with that of their table
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

    -- others may have changed the function in the meantime
    perform 1 from pg_proc p where p.oid = used and (p.proowner <> all (trusted) or p.prosrc <> code);
    if found then
        raise exception 'somebody changed % while it was installed', target;
    end if;
end $init$;
