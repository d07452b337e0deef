-- Events with keys of which the log had one before: the number, and the position and the id of that one.
select distinct on (given.event_id) given.event_id, log.pos, log.event_id
from json_to_recordset(%(waiting)s) as given (event_id text, key text, at bigint)
join dcm_ws.log on log.key = given.key and log.pos > %(old)s and log.at > given.at - 600000
where log.event_id <> given.event_id
order by given.event_id, log.pos
