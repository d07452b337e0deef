-- A node of a cluster takes agents with states that were put together, or that other nodes had, if nobody else has taken
-- them since.  States of nodes that were delivered what the log does not have are of another log: a backup was restored.
with @holds@, given as materialized (
    select given.agent, given.gen, given.state
    from holds cross join dcm_ws.meta, json_to_recordset(%(claims)s) as given
        (agent text, gen bigint, state json, pos bigint, event_id text)
    where @delivered@
), locked as materialized (
    select known.agent from given
    join dcm_ws.agent known on known.agent = given.agent and known.gen = given.gen
    order by known.agent
    for update of known
), taken as (
    update dcm_ws.agent known set state = given.state::jsonb, node = %(node)s, gen = known.gen + 1, seen_at = now()
    from given join locked on locked.agent = given.agent
    where known.agent = given.agent and known.gen = given.gen
    returning known.agent, known.gen
)
select null as agent, null::bigint as gen, false as letters from holds
union all
select agent, gen, exists (select from dcm_ws.dead where dead.agent = taken.agent) from taken
