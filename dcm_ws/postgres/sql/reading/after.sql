-- The next events of the log, whatever their channels: most %s rows and, beyond the first one, %s bytes.
select pos, event_id, channel, event, data, at, sender, named, publisher, mirrored from (
    select *, sum(octet_length(data)) over (order by pos) - octet_length(data) as before
    from (select * from dcm_ws.log where pos > %s and pos <= %s order by pos limit %s) as next
) as counted where before < %s order by pos
