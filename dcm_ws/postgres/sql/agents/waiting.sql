-- What agents have not been sent yet of their channels, of each at most so many, and the time of the oldest of it.
with place as (
    select agent, channel, after from json_to_recordset(%(places)s) as given (agent text, channel text, after bigint)
), next as (
    select place.agent, event.pos, event.at
    from place cross join lateral (
        select pos, at from dcm_ws.log
        where log.channel = place.channel and pos > place.after
        and exists (select from unnest(%(tracked)s::text[]) family where starts_with(log.event, family))
        order by pos limit %(most)s
    ) event
    where place.channel <> 'global'
    union
    select place.agent, event.pos, event.at
    from place cross join lateral (
        select pos, at from dcm_ws.log
        where (log.mirrored or log.channel = 'global') and pos > place.after
        and exists (select from unnest(%(tracked)s::text[]) family where starts_with(log.event, family))
        order by pos limit %(most)s
    ) event
    where place.channel = 'global'
)
select agent, count(*), min(at) from next group by agent
