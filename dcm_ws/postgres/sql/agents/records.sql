-- The next agents by name, or one agent: their states, what has changed since, and how many dead letters they have.
with change as (
    select ack.seq, one.key as agent, one.value from dcm_ws.ack, jsonb_each(ack.changes) one
    where one.key = %(agent)s or (%(agent)s::text is null and one.key collate "C" > %(after)s)
), named as (
    select agent from dcm_ws.agent
    where agent = %(agent)s or (%(agent)s::text is null and agent collate "C" > %(after)s)
    union
    select agent from change
    union
    select agent from dcm_ws.dead
    where agent = %(agent)s or (%(agent)s::text is null and agent collate "C" > %(after)s)
), page as (
    select agent from named order by agent collate "C" limit %(most)s
)
select
    page.agent,
    known.state::text,
    coalesce(known.gen, 0),
    (select coalesce(array_agg(change.value::text order by change.seq), '{}') from change where change.agent = page.agent),
    (select count(*) from dcm_ws.dead where dead.agent = page.agent)
from page left join dcm_ws.agent known on known.agent = page.agent
order by page.agent collate "C"
