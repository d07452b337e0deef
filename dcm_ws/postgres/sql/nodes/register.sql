-- A process joins the cluster.
insert into dcm_ws.node (name, host, pid, version, address)
values (%(name)s, %(host)s, %(pid)s, %(version)s, %(address)s)
returning id, (select system_identifier::text from pg_catalog.pg_control_system()) as system,
    (select oid::bigint from pg_catalog.pg_database where datname = current_database()) as database
