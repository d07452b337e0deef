-- Replaces each half of a character in JSON by U+FFFD, as the service does for NOTIFY: UTF-8 cannot encode it.
create or replace function dcm_ws.repaired(data text) returns text language sql immutable
    set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $body$
    select replace(regexp_replace(
        -- without the escaped backslashes, every other backslash begins an escape; JSON has no control characters
        replace(data, '\\', chr(1)),
        '\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}',
        '\\ufffd', 'g'), chr(1), '\\')
$body$
