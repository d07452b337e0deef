-- The leader of a cluster forgets agents that no node has and that have been away for long enough, and dead letters that
-- were kept for long enough.
with @holds@, forgotten as (
    delete from dcm_ws.agent where agent in (
        select known.agent from holds, dcm_ws.agent known
        left join dcm_ws.node owner on owner.id = known.node and not owner.fenced
        where owner.id is null and known.seen_at < now() - make_interval(secs => %(keep)s)
        and coalesce((known.state ->> 'left')::bigint, 0) < %(now)s - %(keep)s * 1000
        limit %(most)s
    )
    returning agent
), dropped as (
    delete from dcm_ws.dead where (agent, event_id) in (
        select letter.agent, letter.event_id from holds, dcm_ws.dead letter
        where letter.died_at < %(now)s - %(keep_letters)s * 1000
        limit %(most)s
    )
    returning agent
)
select exists (select from holds), (select count(*) from forgotten) + (select count(*) from dropped)
