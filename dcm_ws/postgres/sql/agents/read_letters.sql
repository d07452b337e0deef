-- The next dead letters, by agent and event: most %(most)s and, beyond the first one, %(bytes)s bytes.
select agent, event_id, pos, channel, event, data, at, sender, deliveries, reason, died_at, redriven_at from (
    select *, sum(octet_length(data)) over (order by agent, event_id) - octet_length(data) as before
    from (
        select * from dcm_ws.dead
        where (agent, event_id) > (%(agent)s, %(event_id)s) order by agent, event_id limit %(most)s
    ) as next
) as counted
where before < %(bytes)s order by agent, event_id
