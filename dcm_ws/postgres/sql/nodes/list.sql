-- The nodes of the cluster, the oldest first: those that are there, and those that ended within the last minutes.
select id, name, host, pid, version, address, (extract(epoch from started_at) * 1000)::bigint as started_at,
    greatest(0, extract(epoch from now() - seen_at))::float as unseen, fenced, leader, draining, figures::text,
    (select greatest(meta.base, (select pos from dcm_ws.log order by pos desc limit 1)) from dcm_ws.meta) as head
from dcm_ws.node
where not fenced or seen_at > now() - interval '10 minutes'
order by id
