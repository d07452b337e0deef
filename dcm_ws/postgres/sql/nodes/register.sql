-- A process joins the cluster.
insert into dcm_ws.node (name, host, pid, version, address)
values (%(name)s, %(host)s, %(pid)s, %(version)s, %(address)s)
returning id
