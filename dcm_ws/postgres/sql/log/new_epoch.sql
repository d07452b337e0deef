-- Begins a new epoch, after a restore that the service cannot notice: the positions of clients are no longer valid.
create or replace function dcm_ws.new_epoch() returns text language sql volatile security definer
    set search_path = pg_catalog, pg_temp as $body$
    update dcm_ws.meta set epoch = left(md5(gen_random_uuid()::text), 8) returning epoch
$body$
