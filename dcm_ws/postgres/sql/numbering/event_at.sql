select event_id from dcm_ws.log where pos = %(pos)s
