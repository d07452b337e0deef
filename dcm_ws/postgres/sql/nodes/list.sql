-- The nodes of the cluster, the oldest first: those that are there, and those that ended within the last minutes.
select id, name, host, pid, version, address, started_at, extract(epoch from now() - seen_at)::float as unseen, fenced,
    leader, draining, figures::text
from dcm_ws.node
where not fenced or seen_at > now() - interval '10 minutes'
order by id
