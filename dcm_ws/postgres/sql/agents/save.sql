-- Writes the states of some agents that a node of a cluster has, forgets others, and deletes what its journal has of
-- them.
with @holds@, saved as (
    insert into dcm_ws.agent as known (agent, state, node, gen, seen_at)
    select given.agent, given.state::jsonb, %(node)s, given.gen, now()
    from holds, json_to_recordset(%(states)s) as given (agent text, gen bigint, state json)
    order by given.agent
    on conflict (agent) do update set state = excluded.state, seen_at = excluded.seen_at
    where known.gen = excluded.gen and known.node = excluded.node
), forgotten as (
    delete from dcm_ws.agent known
    using holds, json_to_recordset(%(gone)s) as given (agent text, gen bigint)
    where known.agent = given.agent and known.gen = given.gen and known.node = %(node)s
), covered as (
    delete from dcm_ws.ack using holds where ack.node = %(node)s and ack.seq <= %(upto)s
)
select exists (select from holds)
