-- A node of a cluster takes agents with states that were put together, if nobody else has taken them since.
with @holds@, given as materialized (
    select agent, gen, state from holds, json_to_recordset(%(claims)s) as given (agent text, gen bigint, state json)
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
