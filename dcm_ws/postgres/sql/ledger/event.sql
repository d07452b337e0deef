-- An event by its id.
select pos, event_id, channel, event, data, at, sender from dcm_ws.log where event_id = %(event_id)s order by pos limit 1
