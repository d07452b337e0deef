-- The next rows of the journal: most %(most)s and, beyond the first one, %(bytes)s bytes.
select seq, changes from (
    select seq, changes, sum(octet_length(changes)) over (order by seq) - octet_length(changes) as before
    from (
        select seq, changes::text from dcm_ws.ack where seq > %(after)s order by seq limit %(most)s
    ) as next
) as counted
where before < %(bytes)s order by seq
