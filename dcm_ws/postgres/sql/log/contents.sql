-- Returns one row with one JSON value: how much is in the schema of the log.  The positions of its events are dense.
select json_build_object(
    'events', (select coalesce(max(pos) - min(pos) + 1, 0) from dcm_ws.log),
    'agents', (select count(*) from dcm_ws.agent),
    'dead', (select count(*) from dcm_ws.dead))
