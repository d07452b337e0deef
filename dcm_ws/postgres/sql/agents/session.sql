-- Comes first in each transaction of dcm-ws dead and dcm-ws agents, so that none waits indefinitely or runs code of others.
set local search_path = pg_catalog, pg_temp;
set local statement_timeout = '30s';
set local lock_timeout = '5s';
