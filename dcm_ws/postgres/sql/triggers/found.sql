-- A part of a WITH clause: the tables of our names that the search path finds, and the functions of our name that it
-- finds or that a trigger of these tables calls.
path as (
    select s.name, s.place, n.oid, n.nspowner as owner
    from unnest(current_setting('dcm_ws.schemas')::name[]) with ordinality as s (name, place)
        join pg_namespace n on n.nspname = s.name
    where s.name !~ '^pg_temp'
), named as (
    select c.oid, c.relname as name, c.relkind as kind, c.relowner as owner, path.name as schema,
        row_number() over (partition by c.relname order by path.place) as place
    from path join pg_class c on c.relnamespace = path.oid
    where c.relname = any (@names@) and c.relkind in ('r', 'p', 'v', 'm', 'f')
), ours as (
    select * from named where place = 1
), functions as (
    select p.oid, p.proowner as owner, n.nspname as schema, p.prosrc as source, p.xmin::text as written,
        obj_description(p.oid, 'pg_proc') as comment,
        coalesce((select place from path where path.oid = p.pronamespace), 1000) as place
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where p.proname = 'dcm_ws_notify' and p.pronargs = 0 and (
        p.pronamespace in (select oid from path)
        or p.oid in (select t.tgfoid from pg_trigger t join ours on t.tgrelid = ours.oid))
)
