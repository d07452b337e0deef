-- The partitions of the ledger, the oldest first: name, first position, the position after the last one, and bytes.
select c.relname::text, coalesce(bounds.first, 1), bounds.beyond, pg_total_relation_size(c.oid)
from pg_inherits i join pg_class c on c.oid = i.inhrelid
cross join lateral (select pg_get_expr(c.relpartbound, c.oid) as text) as bound
cross join lateral (select
    substring(bound.text from $$FROM \('?(\d+)'?\)$$)::bigint as first,
    substring(bound.text from $$TO \('?(\d+)'?\)$$)::bigint as beyond) as bounds
where i.inhparent = 'dcm_ws.ledger'::regclass
order by coalesce(bounds.first, 1)
