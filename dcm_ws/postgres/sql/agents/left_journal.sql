-- The next rows of the journals that were left behind by nodes which are fenced: most %(most)s and, beyond the first
-- one, %(bytes)s bytes.
select seq, changes from (
    select seq, changes, sum(octet_length(changes)) over (order by seq) - octet_length(changes) as before
    from (
        select ack.seq, ack.changes::text from dcm_ws.ack
        left join dcm_ws.node writer on writer.id = ack.node and not writer.fenced
        where writer.id is null order by ack.seq limit %(most)s
    ) as next
) as counted
where before < %(bytes)s order by seq
