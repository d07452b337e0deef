-- Raises an exception unless a channel and an event fit the grammar (protocol, sections 1 and 3).
create or replace function dcm_ws.check_names(channel text, event text) returns void language plpgsql immutable
    set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $body$
declare
    name text := regexp_replace(channel, '^(agents|sessions|topics)/', '');
    wrong text;
begin
    if channel is null then
        raise exception 'dcm_ws.publish: channel is null' using errcode = '22004';
    elsif event is null then
        raise exception 'dcm_ws.publish: event is null' using errcode = '22004';
    elsif length(event) > 64 or event !~ '^[A-Za-z0-9_.:-]+$' then
        raise exception 'dcm_ws.publish: the event % is invalid', to_json(left(event, 128))
            using errcode = '22023', hint = 'use @event_rule@';
    end if;
    wrong := case
        when name = '' then 'empty'
        when length(name) > 128 then 'too long'
        when name ~ '[\u0001-\u001f\u007f]' then 'control'
        when name ~ '^ | $' then 'space'
    end;
    if wrong is null and getdatabaseencoding() = 'UTF8' and (
        -- Unicode's categories Cc, Cf, Zl and Zp anywhere; Zs at the ends
        name ~ '[\u0080-\u009f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f]'
        or name ~ '[\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f]'
        or name ~ '[\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]'
        or name ~ '^[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]|[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]$') then
        wrong := 'invisible';
    end if;
    if wrong is not null then
        raise exception 'dcm_ws.publish: the channel % is invalid', to_json(left(channel, 128)) using errcode = '22023',
            hint = 'use global, or agents/, sessions/ or topics/ and a name: @identifier_rule@';
    end if;
end
$body$
