-- The relations of the given names and kinds in the given schemas, those of the first schema first: name, qualified name
-- as SQL, kind, a function or operator of another role that the planner would run (null for none), and the type of each
-- column (null for a type outside of pg_catalog).  The query has parameters, so each % is written twice.
select c.relname::text, format('%%I.%%I', n.nspname, c.relname), c.relkind::text, (
    with recursive tree (relation) as (
        select c.oid union all select i.inhrelid from tree join pg_inherits i on i.inhparent = tree.relation
    ), planned (class, object) as (
        select 'pg_class'::regclass::oid, relation from tree
        union all select 'pg_class'::regclass, indexrelid from pg_index join tree on relation = indrelid
        union all select 'pg_constraint'::regclass, oid from pg_constraint join tree on relation = conrelid
        union all select 'pg_statistic_ext'::regclass, oid from pg_statistic_ext join tree on relation = stxrelid
    ), used (name, namespace, owner) as (
        select p.oid::regprocedure::text, p.pronamespace, p.proowner
        from planned join pg_depend d on d.classid = class and d.objid = object
        join pg_proc p on p.oid = d.refobjid and d.refclassid = 'pg_proc'::regclass
        union all
        select o.oid::regoperator::text, o.oprnamespace, o.oprowner
        from planned join pg_depend d on d.classid = class and d.objid = object
        join pg_operator o on o.oid = d.refobjid and d.refclassid = 'pg_operator'::regclass
    )
    select used.name from used join pg_roles r on r.oid = owner
    where namespace <> 'pg_catalog'::regnamespace and not r.rolsuper and r.rolname <> current_user limit 1
), coalesce((
    select json_object_agg(a.attname, case when coalesce(b.typnamespace, t.typnamespace) = 'pg_catalog'::regnamespace
        then coalesce(b.typname, t.typname)::text end)
    from pg_attribute a join pg_type t on t.oid = a.atttypid left join pg_type b on b.oid = nullif(t.typbasetype, 0)
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '{}')
from unnest(%(schemas)s::text[]) with ordinality as path (schema, place)
join pg_namespace n on n.nspname = path.schema
join pg_class c on c.relnamespace = n.oid
where c.relname = any(%(names)s::text[]) and c.relkind = any(%(kinds)s::text[])
order by path.place
