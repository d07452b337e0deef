-- The next events of some channels, each after a position of its own.
select pos, event_id, channel, event, data, at, sender, named, publisher, mirrored from (
    select *, sum(octet_length(data)) over (order by pos) - octet_length(data) as before
    from (
        select distinct on (pos) * from (
            select l.* from unnest(%(channels)s::text[], %(after)s::bigint[]) as wanted (channel, after)
            cross join lateral (
                select * from dcm_ws.log as l
                where l.channel = wanted.channel and l.pos > wanted.after and l.pos <= %(head)s
                order by l.pos limit %(most)s) as l
            union all
            (select * from dcm_ws.log where mirrored and pos > %(everything)s and pos <= %(head)s
            order by pos limit %(most)s)
        ) as found order by pos limit %(most)s
    ) as next
) as counted where before < %(bytes)s order by pos
