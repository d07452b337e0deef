-- Raises an exception if JSON is nested too deep, or has a number that a 64-bit float cannot hold.
create or replace function dcm_ws.check_data(data text) returns void language plpgsql stable
    set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $body$
declare
    -- strings emptied
    bare text := regexp_replace(data, '"(?:[^"\\]|\\.)*"', '""', 'g');
    nested text;
    most int;
begin
    select m.max_depth into strict most from dcm_ws.meta m;
    if length(bare) - length(replace(replace(bare, '[', ''), '{', '')) > most then
        nested := translate(regexp_replace(bare, '[^][{}]+', '', 'g'), '{}', '[]');
        -- each turn removes the innermost level
        for level in 1..most loop
            nested := replace(nested, '[]', '');
            exit when nested = '';
        end loop;
        if nested <> '' then
            raise exception 'dcm_ws.publish: data is nested deeper than % levels', most using errcode = '54000';
        end if;
    end if;
    if exists (
        select from regexp_matches(bare, '[0-9][0-9.]{200,}(?:[eE][+-]?[0-9]+)?|[0-9][0-9.]*[eE][+]?[0-9]{3,}', 'g')
            as found (number)
        where case when number[1] ~ '[eE][+-]?0*[1-9][0-9]{4,}$' then number[1] !~ '[eE]-'
            else number[1]::numeric >= 1.797693134862315807937e308 end) then
        raise exception 'dcm_ws.publish: data has a number beyond the range of a 64-bit float' using errcode = '22003';
    end if;
end
$body$
