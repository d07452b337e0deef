-- Whether a service has ever opened the log.  Until then nobody reads what is published, so the triggers notify.
create or replace function dcm_ws.in_use() returns boolean language plpgsql stable security definer
    set search_path = pg_catalog, pg_temp as $body$
begin
    return (select m.opened_at is not null from dcm_ws.meta m);
end
$body$
