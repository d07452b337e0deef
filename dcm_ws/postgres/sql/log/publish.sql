-- Publishes an event in the caller's transaction, and returns its id.  There is one such function for each type of data.
-- It does not wait for other sessions.  Short data and plain names only need the cheap tests here; check_names() and
-- check_data() examine the rest.
-- No literal has a backslash, unless it begins with E, because the caller may turn standard_conforming_strings off.
create or replace function dcm_ws.publish(channel text, event text, data @data@, key text default null)
    returns text language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp as $body$
declare
    said text := coalesce(data::text, 'null');
    size int := octet_length(said);
    ms bigint := extract(epoch from clock_timestamp()) * 1000;
    examined boolean := false;
    valid json;
    stored text;
    id text;
begin
    if size > 65536 then
        perform dcm_ws.check_size(size);
    end if;
    if (channel ~ '^[!-~]*[!-.0-~]$' and length(channel) <= 128
        and event ~ '^[A-Za-z0-9_.:-]+$' and length(event) <= 64) is not true then
        perform dcm_ws.check_names(channel, event);
    end if;
@checks@
    -- exponents of three digits, and many digits
    if said ~ '[0-9][eE][+]?[0-9]{3}|[0-9]{32}' then
        perform dcm_ws.check_data(said);
    end if;
    if getdatabaseencoding() <> 'UTF8' then
        -- a database in SQL_ASCII may hold any bytes
        perform convert_from(convert_to(concat(channel, said, key), 'SQL_ASCII'), 'UTF8');
    end if;
    if key <> '' then
        if length(key) > 128 then
            raise exception 'dcm_ws.publish: key has % characters; at most 128 are allowed', length(key)
                using errcode = '22023';
        end if;
        stored := '=' || session_user || ' ' || key;
        id := dcm_ws.known(stored, ms - 600000);
        if id is not null then
            return id;
        end if;
    end if;
    loop
        insert into dcm_ws.inbox (slot, event_id, channel, event, data, at, key)
            select m.slot, 'msg_' || replace(gen_random_uuid()::text, '-', ''), channel, event, said, ms, stored
            from dcm_ws.meta m
            -- each level of nesting takes two bytes
            where size <= m.max_bytes and (size <= 2 * m.max_depth or examined
                or size - octet_length(replace(replace(said, '[', ''), '{', '')) <= m.max_depth)
            returning event_id into id;
        exit when id is not null;
        perform dcm_ws.check_size(size);
        perform dcm_ws.check_data(said);
        examined := true;
    end loop;
    -- while the service polls, it holds this lock and needs no notification
    if pg_try_advisory_lock_shared(1684237687, 2) then
        perform pg_advisory_unlock_shared(1684237687, 2);
        -- PREPARE TRANSACTION is not possible after a notification
        if current_setting('dcm_ws.wake', true) is distinct from 'off' then
            perform pg_notify('dcm_ws_wake', '');
        end if;
    end if;
    return id;
end
$body$
