-- Drops the schema of the log, unless objects of others depend on it.
do $log$
declare
    wanted name := coalesce(@owner@, current_user);
    version int;
    home record;
    one record;
begin
@writable@
@home@
    if home.oid is not null then
        for one in
            select string_agg(format('dcm_ws.%I', c.relname), ', ') as names
            from pg_class c where c.relnamespace = home.oid and c.relkind in ('r', 'p') and not c.relispartition
            having count(*) > 0
        loop
            execute 'drop table ' || one.names;
        end loop;
        for one in select p.oid::regprocedure as name from pg_proc p where p.pronamespace = home.oid loop
            execute format('drop function %s', one.name);
        end loop;
        drop schema dcm_ws;
    end if;
end $log$;
