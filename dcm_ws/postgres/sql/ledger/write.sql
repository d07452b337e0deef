-- Writes pages of the ledger, if the process may write, that is if @right@ has a row.  What is older than the log is left
-- out: there is no partition for it any more.
with @sql@, oldest as materialized (
    select coalesce((select pos from dcm_ws.log order by pos limit 1), meta.base + 1) as pos from dcm_ws.meta
), written as (
    insert into dcm_ws.ledger (upto, first, node, entries)
    select given.upto, given.first, %(node)s, given.entries
    from @right@, oldest, unnest(%(uptos)s::bigint[], %(firsts)s::bigint[], %(entries)s::text[])
        as given (upto, first, entries)
    where given.upto >= oldest.pos
)
select exists (select from @right@)
