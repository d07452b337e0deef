-- The pages of the ledger that may have something of one event, the oldest first: most %(most)s and, beyond the first one,
-- %(bytes)s bytes.
select entries from (
    select number, entries, sum(octet_length(entries)) over (order by number) - octet_length(entries) as before
    from (
        select row_number() over (order by at, upto, first) as number, entries from dcm_ws.ledger
        where upto >= %(pos)s and upto < %(end)s and first <= %(pos)s
        order by at, upto, first limit %(most)s
    ) as next
) as counted
where before < %(bytes)s order by number
