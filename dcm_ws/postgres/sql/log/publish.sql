-- Publishes an event in the caller's transaction, and returns its id.  There is one such function for each type of data.
create or replace function dcm_ws.publish(channel text, event text, data @data@, key text default null)
    returns text language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp as $body$
declare
    said text := coalesce(data::text, 'null');
    chosen text := 'msg_' || replace(gen_random_uuid()::text, '-', '');
    now_ms bigint := extract(epoch from clock_timestamp()) * 1000;
    stored text;
    known text;
    meta record;
begin
    select m.slot, m.max_bytes, m.max_depth into strict meta from dcm_ws.meta m;
@checks@
    if key is not null then
        stored := '=' || session_user || ' ' || key;
        known := dcm_ws.known(stored, now_ms - 600000);
        if known is not null then
            return known;
        end if;
    end if;
    insert into dcm_ws.inbox (slot, event_id, channel, event, data, at, key)
        values (meta.slot, chosen, publish.channel, publish.event, said, now_ms, stored);
    -- while the service polls, it holds this lock, and needs no notification
    if pg_try_advisory_lock_shared(1684237687, 2) then
        perform pg_advisory_unlock_shared(1684237687, 2);
        perform pg_notify('dcm_ws_wake', '');
    end if;
    return chosen;
end
$body$
