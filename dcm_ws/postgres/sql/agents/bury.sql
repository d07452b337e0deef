-- Part of the statements that write what has changed: keeps dead letters, and drops some, if the process may write, that
-- is if @right@ has a row.
buried as (
    insert into dcm_ws.dead as letter
        (agent, event_id, pos, channel, event, data, at, sender, deliveries, reason, died_at, redriven_at)
    select given.agent, given.event_id, given.pos, given.channel, given.event, given.data, given.at, given.sender,
        given.deliveries, given.reason, given.died_at, given.redriven_at
    from @right@, json_to_recordset(%(letters)s) as given (
        agent text, event_id text, pos bigint, channel text, event text, data text, at bigint, sender text,
        deliveries int, reason text, died_at bigint, redriven_at bigint)
    on conflict (agent, event_id) do update
    set pos = excluded.pos, deliveries = excluded.deliveries, reason = excluded.reason, died_at = excluded.died_at,
        redriven_at = excluded.redriven_at
), dropped as (
    delete from dcm_ws.dead letter
    using @right@, json_to_recordset(%(dropped)s) as gone (agent text, event_id text)
    where letter.agent = gone.agent and letter.event_id = gone.event_id
)
