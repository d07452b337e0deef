select pos, event_id, channel, event, data, at, sender, named, publisher, mirrored
from dcm_ws.log where pos = any (%(positions)s)
