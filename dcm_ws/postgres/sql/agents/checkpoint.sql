-- Writes the states of some agents, and forgets others, and what the journal has of them.
with @leads@, saved as (
    insert into dcm_ws.agent as known (agent, state, seen_at)
    select given.agent, given.state::jsonb, now() from leads, json_each(%(states)s) as given (agent, state)
    on conflict (agent) do update set state = excluded.state, seen_at = excluded.seen_at
), forgotten as (
    delete from dcm_ws.agent known using leads where known.agent = any (%(gone)s::text[])
), covered as (
    delete from dcm_ws.ack using leads where seq <= %(upto)s
)
select exists (select from leads)
