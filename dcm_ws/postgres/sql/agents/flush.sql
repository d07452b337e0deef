-- Writes what has changed since the last time, at a node of a cluster, and returns the agents that another node has
-- taken since: changes of theirs count for nothing.
with @holds@, buried as (
    insert into dcm_ws.dead as letter
        (agent, event_id, pos, channel, event, data, at, sender, deliveries, reason, died_at, redriven_at)
    select given.agent, given.event_id, given.pos, given.channel, given.event, given.data, given.at, given.sender,
        given.deliveries, given.reason, given.died_at, given.redriven_at
    from holds, json_to_recordset(%(letters)s) as given (
        agent text, event_id text, pos bigint, channel text, event text, data text, at bigint, sender text,
        deliveries int, reason text, died_at bigint, redriven_at bigint)
    on conflict (agent, event_id) do update
    set pos = excluded.pos, deliveries = excluded.deliveries, reason = excluded.reason, died_at = excluded.died_at,
        redriven_at = excluded.redriven_at
), dropped as (
    delete from dcm_ws.dead letter
    using holds, json_to_recordset(%(dropped)s) as gone (agent text, event_id text)
    where letter.agent = gone.agent and letter.event_id = gone.event_id
), written as (
    insert into dcm_ws.ack (node, changes)
    select %(node)s, changes from holds, (values (%(changes)s::jsonb)) given (changes) where changes is not null
    returning seq
), lost as (
    select known.agent, known.node
    from jsonb_each(%(changes)s::jsonb) as given
    join dcm_ws.agent known on known.agent = given.key
    where known.gen <> (given.value ->> 'gen')::bigint
)
select exists (select from holds), (select seq from written),
    coalesce((select json_object_agg(agent, node) from lost)::text, '{}')
