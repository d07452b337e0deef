-- The leader fences the nodes that have not been seen for so many seconds, and forgets those that ended long ago and have
-- left nothing behind.
with forgotten as (
    delete from dcm_ws.node
    where fenced and id <> %(node)s and seen_at < now() - interval '1 hour'
        and not exists (select from dcm_ws.ack where ack.node = node.id)
)
update dcm_ws.node
set fenced = true, leader = false
where id <> %(node)s and not fenced and seen_at < now() - %(seconds)s * interval '1 second'
returning id, name
