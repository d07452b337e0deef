-- Comes before each query of the metrics, in the same transaction: the query can neither write nor run code of others.
-- The settings end with the transaction: with a connection pool, the next one may be another application's.
set local statement_timeout = @timeout_ms@;
set local search_path = '';
set local transaction_read_only = on;
set local row_security = off;
-- a table may be replaced after it was found; PostgreSQL has this setting since the minor releases of August 2024
select set_config(name, 'view, foreign-table', true)
from (select 'restrict_nonsystem_relation_kind') s (name)
where current_setting(name, true) is not null;
