-- The partitions of the log, the oldest first.
select c.relname::text, coalesce(bounds.first, 1), bounds.beyond - 1,
    (select extract(epoch from clock_timestamp() - logged_at)::float from dcm_ws.log
        where pos >= coalesce(bounds.first, 1) and (bounds.beyond is null or pos < bounds.beyond) order by pos limit 1),
    (select extract(epoch from clock_timestamp() - logged_at)::float from dcm_ws.log where pos = bounds.beyond - 1),
    pg_total_relation_size(c.oid)
from pg_inherits i join pg_class c on c.oid = i.inhrelid
cross join lateral (select pg_get_expr(c.relpartbound, c.oid) as text) as bound
cross join lateral (select
    substring(bound.text from $$FROM \('?(\d+)'?\)$$)::bigint as first,
    substring(bound.text from $$TO \('?(\d+)'?\)$$)::bigint as beyond) as bounds
where i.inhparent = 'dcm_ws.log'::regclass
order by coalesce(bounds.first, 1)
