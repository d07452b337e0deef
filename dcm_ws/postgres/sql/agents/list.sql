-- Dead letters that an operator asks for, the oldest first.
select agent, event_id, pos, channel, event, @data@ as data, at, deliveries, reason, died_at, redriven_at, request
from dcm_ws.dead
where @chosen@
and @unless@
order by died_at, agent, pos
limit %(most)s
