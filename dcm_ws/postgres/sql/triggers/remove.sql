-- Drops the triggers and the function.  Tables stay.
do $dcm_ws$
declare
    marked oid[];
    one record;
begin
@writable@
    with @found@ select coalesce(array_agg(oid), '{}') into marked
        from functions where comment like '@mark@ %';
    for one in with @found@ select * from functions where oid <> all (marked) loop
        raise exception 'the function %.dcm_ws_notify() is not one of dcm-ws; it belongs to %',
            one.schema, pg_get_userbyid(one.owner) using hint = 'drop it, or rename it';
    end loop;
    -- whatever the schemas and names of the tables are by now
    for one in
        select t.tgname as name, t.tgrelid::regclass as place from pg_trigger t
        -- the trigger of a partition is dropped with that of its table
        where t.tgfoid = any (marked) and t.tgparentid = 0
    loop
        execute format('drop trigger %I on %s', one.name, one.place);
    end loop;
    for one in select f::regprocedure as name from unnest(marked) as f loop
        execute format('drop function %s', one.name);
    end loop;
end $dcm_ws$;
