-- Returns the epoch, and the last position that is visible to the caller.
create or replace function dcm_ws.head() returns jsonb language sql stable security definer
    set search_path = pg_catalog, pg_temp as $body$
    select jsonb_build_object('epoch', m.epoch, 'pos', coalesce((select max(l.pos) from dcm_ws.log l), m.base))
    from dcm_ws.meta m
$body$
