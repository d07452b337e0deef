-- The dead letters of some agents.
select agent, event_id, pos, channel, event, data, at, sender, deliveries, reason, died_at, redriven_at
from dcm_ws.dead where agent = any (%(agents)s::text[])
order by died_at, agent, pos
