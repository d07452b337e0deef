-- Settings of the session that reads the log.
set enable_seqscan = off;
set jit = off;
set search_path = pg_catalog, pg_temp;
set default_transaction_read_only = on;
set statement_timeout = '10s';
-- the one before does not end a statement whose result nobody reads
set tcp_user_timeout = '10s';
