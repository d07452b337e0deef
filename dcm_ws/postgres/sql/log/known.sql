-- Returns the id of an event that was published under a key in the last 10 minutes; null if there is none.
-- It reads the inbox only, so that a transaction that publishes with keys does not lock the log: a slot of the inbox is
-- emptied when the third slot after it is to be written.
create or replace function dcm_ws.known(stored text, since bigint) returns text language sql volatile
    set search_path = pg_catalog, pg_temp set enable_seqscan = off as $body$
    select i.event_id from dcm_ws.inbox i where i.key = stored and i.at >= since order by i.id limit 1
$body$
