-- Asks the service to do something with dead letters.  What it was asked to purge is not redriven.
update dcm_ws.dead letter
set request = %(request)s
from unnest(%(agents)s::text[], %(event_ids)s::text[]) wanted (agent, event_id)
where letter.agent = wanted.agent
and letter.event_id = wanted.event_id
and (%(request)s = 'purge' or letter.request is distinct from 'purge')
