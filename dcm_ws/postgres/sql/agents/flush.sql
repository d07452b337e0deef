-- Writes what has changed since the last time, at a node of a cluster, and returns the agents that another node has
-- taken since: changes of theirs count for nothing.
with @holds@, @letters@, written as (
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
