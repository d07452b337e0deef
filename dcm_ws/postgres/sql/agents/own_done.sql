-- What operators wanted to be redriven has been redriven.
with @holds@
update dcm_ws.dead letter set request = null
from holds, json_to_recordset(%(letters)s) as given (agent text, event_id text)
where letter.agent = given.agent and letter.event_id = given.event_id and letter.request = 'redrive'
