-- Single events of the log.
select pos, event, channel, at from dcm_ws.log where pos = any (%(positions)s::bigint[])
