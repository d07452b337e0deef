-- Raises an exception if data has too many bytes.
create or replace function dcm_ws.check_size(size int) returns void language plpgsql stable
    set search_path = pg_catalog, pg_temp as $body$
declare
    most int;
begin
    select m.max_bytes into strict most from dcm_ws.meta m;
    if size > most then
        raise exception 'dcm_ws.publish: data has % bytes; at most % are allowed', size, most
            using errcode = '54000', hint = 'publish where the data is, or raise --max-message-size of dcm-ws';
    end if;
end
$body$
