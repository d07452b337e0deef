-- Writes what has changed since the last time: to the journal, and to the dead letters.
with @leads@, buried as (
    insert into dcm_ws.dead as letter
        (agent, event_id, pos, channel, event, data, at, sender, deliveries, reason, died_at, redriven_at)
    select given.agent, given.event_id, given.pos, given.channel, given.event, given.data, given.at, given.sender,
        given.deliveries, given.reason, given.died_at, given.redriven_at
    from leads, json_to_recordset(%(letters)s) as given (
        agent text, event_id text, pos bigint, channel text, event text, data text, at bigint, sender text,
        deliveries int, reason text, died_at bigint, redriven_at bigint)
    on conflict (agent, event_id) do update
    set pos = excluded.pos, deliveries = excluded.deliveries, reason = excluded.reason, died_at = excluded.died_at,
        redriven_at = excluded.redriven_at
), dropped as (
    delete from dcm_ws.dead letter
    using leads, json_to_recordset(%(dropped)s) as gone (agent text, event_id text)
    where letter.agent = gone.agent and letter.event_id = gone.event_id
), written as (
    insert into dcm_ws.ack (changes)
    select changes from leads, (values (%(changes)s::jsonb)) given (changes) where changes is not null
    returning seq
)
select exists (select from leads), (select seq from written)
