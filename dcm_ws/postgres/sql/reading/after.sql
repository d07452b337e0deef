-- The next events of the log, whatever their channels: limited in number and, beyond the first one, in bytes.
select pos, event_id, channel, event, data, at, sender, named, publisher, mirrored from (
    select *, sum(octet_length(data)) over (order by pos) - octet_length(data) as before
    from (select * from dcm_ws.log where pos > %(after)s and pos <= %(head)s order by pos limit %(most)s) as next
) as counted where before < %(bytes)s order by pos
