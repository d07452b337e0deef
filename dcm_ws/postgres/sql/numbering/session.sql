-- Settings of the session that numbers events.  Its statements are planned once, and must use indexes whatever the tables
-- looked like then: they are empty at first.
set enable_seqscan = off;
-- a step joins all its events with each other, and PostgreSQL expects it to have very few
set enable_nestloop = off;
set plan_cache_mode = force_generic_plan;
set jit = off;
set search_path = pg_catalog, pg_temp;
set lock_timeout = '1s';
-- if the network is cut, or this process is stopped, while the server sends a result or waits: the lock must become free
set tcp_user_timeout = '10s';
set tcp_keepalives_idle = 5;
set tcp_keepalives_interval = 2;
set tcp_keepalives_count = 3;
