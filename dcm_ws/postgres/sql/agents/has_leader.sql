-- Does a service use the durable log of this database now?
select exists (
    select from pg_locks
    where locktype = 'advisory' and classid = 1684237687 and objid = 1 and objsubid = 2 and granted
    and database = (select oid from pg_database where datname = current_database())
)
