-- Returns one row with one JSON value, from which the class LogSchema is made.
select json_build_object(
    'server', current_setting('server_version_num')::int,
    'encoding', getdatabaseencoding(),
    'read_only', current_setting('transaction_read_only')::boolean,
    'role', current_user,
    'owner', pg_get_userbyid(n.nspowner),
    'version', substring(obj_description(n.oid, 'pg_namespace') from '^@mark@ ([0-9]{1,9})$')::int,
    'member', pg_has_role(n.nspowner, 'usage'),
    'trusted', (select @trusted@ from pg_roles r where r.oid = n.nspowner),
    'foreign', (
        select c.relname from pg_class c where c.relnamespace = n.oid and c.relowner <> n.nspowner
        union all
        select p.proname from pg_proc p where p.pronamespace = n.oid and p.proowner <> n.nspowner
        limit 1),
    'grantees', (
        select json_agg(distinct coalesce(pg_get_userbyid(nullif(a.grantee, 0))::text, 'public'))
        from aclexplode(n.nspacl) as a where a.grantee <> n.nspowner and a.privilege_type = 'USAGE'),
    'functions', (
        select json_object_agg(p.oid::regprocedure::text, md5(p.prosrc)) from pg_proc p where p.pronamespace = n.oid)
)
from (values (1)) as always left join pg_namespace n on n.nspname = 'dcm_ws'
