-- One look of a node that does not lead: tries to get the leader's lock, and returns the next events of the log, limited in
-- number and, beyond the first one, in bytes; in one row if there are none.
with look as materialized (
    select pg_try_advisory_lock(1684237687, 1) as leads, epoch, base from dcm_ws.meta
), head as materialized (
    select greatest(look.base, (select pos from dcm_ws.log order by pos desc limit 1)) as pos from look
)
select look.leads, look.epoch, head.pos, event.pos, event_id, channel, event, data, at, sender, named, publisher, mirrored
from look cross join head left join (
    select *, sum(octet_length(data)) over (order by pos) - octet_length(data) as before
    from (select * from dcm_ws.log where pos > %(after)s order by pos limit %(most)s) as next
) as event on before < %(bytes)s
order by event.pos
