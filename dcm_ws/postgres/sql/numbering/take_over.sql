-- Makes the events of an inbox that comes from another server new ones here, but for those that have positions.
lock table dcm_ws.inbox in access exclusive mode;
delete from dcm_ws.inbox where event_id in (select event_id from dcm_ws.log);
update dcm_ws.inbox set xid = pg_current_xact_id();
update dcm_ws.meta set base = %(head)s, snapshot = %(snapshot)s, epoch = %(epoch)s, system_id = %(system)s,
    timeline = %(timeline)s
