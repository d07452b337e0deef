-- A node of a cluster that is about to stop writes the states of agents that it has, and has them no more.  What its journal
-- has of them does not count from now on.
with @holds@, given as materialized (
    select agent, gen, state from holds, json_to_recordset(%(states)s) as given (agent text, gen bigint, state json)
), locked as materialized (
    select known.agent from given
    join dcm_ws.agent known on known.agent = given.agent and known.gen = given.gen and known.node = %(node)s
    order by known.agent
    for update of known
), free as (
    update dcm_ws.agent known set state = given.state::jsonb, node = null, gen = known.gen + 1, seen_at = now()
    from given join locked on locked.agent = given.agent
    where known.agent = given.agent and known.gen = given.gen
)
select exists (select from holds)
