-- Begins each transaction of init-db.  It notes the search path, and leaves only pg_catalog in it.
-- Later writers queue behind a transaction that waits for a lock on a table, so it must not wait for long.
set local lock_timeout = '5s';
set local standard_conforming_strings = on;
do $dcm_ws$ begin
    if pg_catalog.current_setting('search_path') <> 'pg_catalog, pg_temp' then
        perform pg_catalog.set_config('dcm_ws.schemas', pg_catalog.current_schemas(false)::pg_catalog.text, true);
        perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    end if;
end $dcm_ws$;
