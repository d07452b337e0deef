-- What has become of dead letters that the service was asked to do something with: how many it has seen to, and how many
-- are gone, because they were purged, or because their agents have acknowledged the events.
select
    count(*) filter (where letter.agent is null or letter.request is null),
    count(*) filter (where letter.agent is null)
from unnest(%(agents)s::text[], %(event_ids)s::text[]) wanted (agent, event_id)
left join dcm_ws.dead letter on letter.agent = wanted.agent and letter.event_id = wanted.event_id
