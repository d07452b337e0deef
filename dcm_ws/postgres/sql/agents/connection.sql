-- Settings of the connection that writes what agents are owed: nothing waits indefinitely, and no transaction stays open if
-- this process is stopped in the middle of it, or the network is cut.
set search_path = pg_catalog, pg_temp;
set statement_timeout = '10s';
set lock_timeout = '2s';
set idle_in_transaction_session_timeout = '10s';
set tcp_user_timeout = '10s';
set jit = off
