-- The epoch of the log, and the bytes of the inbox with its indexes.
select epoch, (select sum(pg_total_relation_size(relid))::bigint from pg_partition_tree('dcm_ws.inbox')) from dcm_ws.meta
