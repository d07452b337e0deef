-- Returns one row with one JSON value, from which the class Installed is made.  begin.sql comes before it.
with @found@
select json_build_object(
    'functions', (select coalesce(json_agg(json_build_object(
        'name', format('%I.dcm_ws_notify()', schema), 'owner', pg_get_userbyid(owner), 'source', source,
        'comment', comment, 'written', written,
        'trusted', (select @trusted@ from pg_roles r where r.oid = functions.owner) or (
            select bool_and(c.relowner = functions.owner)
            from pg_trigger t join pg_class c on c.oid = t.tgrelid where t.tgfoid = functions.oid)
    ) order by place), '[]') from functions),
    'tables', (select coalesce(json_object_agg(ours.name, json_build_object(
        'name', format('%I.%I', schema, ours.name), 'owner', pg_get_userbyid(owner),
        'subscribed', exists (select from pg_subscription_rel s
            where s.srrelid = ours.oid or s.srrelid in (select relid from pg_partition_tree(ours.oid))),
        'triggers', (select coalesce(json_agg(json_build_object(
            'oid', t.oid, 'enabled', t.tgenabled, 'arguments', encode(t.tgargs, 'hex'))), '[]')
            from pg_trigger t
            where (t.tgrelid = ours.oid or t.tgrelid in (select relid from pg_partition_tree(ours.oid)))
                and t.tgfoid in (select oid from functions) and t.tgtype::int & 1 = 1)
    )), '{}') from ours))
