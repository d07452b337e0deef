-- The leader of a cluster writes the states of agents that no node has, and deletes the rows of the journal that are in
-- them.
with @holds@, saved as (
    insert into dcm_ws.agent as known (agent, state, gen)
    select given.agent, given.state::jsonb, given.gen
    from holds, json_to_recordset(%(states)s) as given (agent text, gen bigint, state json)
    order by given.agent
    on conflict (agent) do update set state = excluded.state where known.gen = excluded.gen
), covered as (
    delete from dcm_ws.ack using holds where ack.seq = any (%(rows)s::bigint[])
)
select exists (select from holds)
