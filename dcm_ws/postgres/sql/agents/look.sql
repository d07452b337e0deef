-- A node of a cluster wants to have some agents.  It gets those that nobody has and that need nothing else; of the
-- others it learns who has them, or what has to be put together first.
--   kept: the node has it already, and nobody else has had it since.   taken: the node has it now.
--   stale: nobody has it, but its changes are not in its state yet.    owned: another node has it.
with @holds@, wanted as materialized (
    select agent, gen, forced
    from holds, json_to_recordset(%(agents)s) as given (agent text, gen bigint, forced boolean)
), known as materialized (
    select known.agent, known.gen, known.node, known.state,
        coalesce(known.node = %(node)s and known.gen = wanted.gen, false) as kept,
        owner.id is null or wanted.forced as free
    from wanted
    join dcm_ws.agent known on known.agent = wanted.agent
    left join dcm_ws.node owner on owner.id = known.node and not owner.fenced and owner.id <> %(node)s
    order by known.agent
    for update of known
), free as materialized (
    select agent, gen, node from known where free and not kept
    union all
    select agent, 0, null from wanted where not exists (select from known where known.agent = wanted.agent)
), journal as materialized (
    select free.agent, json_agg(change.value order by ack.seq) as changes
    from dcm_ws.ack
    cross join lateral jsonb_each(ack.changes) as change
    join free on free.agent = change.key and free.gen = coalesce((change.value ->> 'gen')::bigint, 0)
    where exists (select from free) and (
        ack.node is null
        or ack.node in (select node from free)
        or not exists (select from dcm_ws.node where id = ack.node and not fenced)
    )
    group by free.agent
), born as (
    -- those that a service without a cluster has only in its journal are not new
    insert into dcm_ws.agent (agent, state, node, gen)
    select wanted.agent, '{}', case when journal.agent is null then %(node)s end, (journal.agent is null)::int
    from wanted left join journal on journal.agent = wanted.agent
    where not exists (select from known where known.agent = wanted.agent)
    order by wanted.agent
    on conflict (agent) do nothing
    returning agent, gen
), taken as (
    update dcm_ws.agent known set node = %(node)s, gen = known.gen + 1, seen_at = now()
    from free
    where known.agent = free.agent and not exists (select from journal where journal.agent = free.agent)
    returning known.agent, known.gen
)
select null as agent, 'holds' as is, null::bigint as gen, null::bigint as node, null as state, null as changes,
    false as letters
from holds
union all
select born.agent, case when born.gen = 0 then 'stale' else 'taken' end, born.gen, null, '{}', journal.changes::text,
    exists (select from dcm_ws.dead where dead.agent = born.agent)
from born left join journal on journal.agent = born.agent
union all
select known.agent,
    case
        when known.kept then 'kept'
        when taken.agent is not null then 'taken'
        when known.free then 'stale'
        else 'owned'
    end,
    coalesce(taken.gen, known.gen), known.node, case when known.free then known.state::text end, journal.changes::text,
    exists (select from dcm_ws.dead where dead.agent = known.agent)
from known
left join taken on taken.agent = known.agent
left join journal on journal.agent = known.agent
