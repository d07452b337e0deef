-- Where the log is: its epoch, what the epoch was made on and what the server is now, and its end.
select m.epoch, m.system_id, m.timeline, m.slot, m.base, m.snapshot::text as snapshot,
    (select system_identifier::text from pg_control_system()) as system_now,
    ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int as timeline_now,
    l.pos, l.snapshot::text as log_snapshot, l.event_id
from dcm_ws.meta m left join lateral (
    select pos, snapshot, event_id from dcm_ws.log order by pos desc limit 1) l on true
