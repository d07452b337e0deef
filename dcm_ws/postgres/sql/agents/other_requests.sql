-- The leader of a cluster does what operators want to be done with dead letters of agents that no node has.  What is
-- redriven is sent when its agent returns.
with @holds@, wanted as materialized (
    select letter.agent, letter.event_id, letter.request
    from holds, dcm_ws.dead letter
    where letter.request is not null and not exists (
        select from dcm_ws.agent known join dcm_ws.node owner on owner.id = known.node and not owner.fenced
        where known.agent = letter.agent
    )
    order by letter.agent, letter.event_id limit %(most)s
    for update of letter
), redriven as (
    update dcm_ws.dead letter set request = null, deliveries = 0, redriven_at = %(now)s
    from wanted
    where letter.agent = wanted.agent and letter.event_id = wanted.event_id and wanted.request = 'redrive'
), purged as (
    delete from dcm_ws.dead letter using wanted
    where letter.agent = wanted.agent and letter.event_id = wanted.event_id and wanted.request = 'purge'
)
select exists (select from holds), count(*) from wanted
