-- Statements of a DO block: find the schema of the log, and raise an exception unless its owner is trusted.
    select n.oid, pg_get_userbyid(n.nspowner) as owner, obj_description(n.oid, 'pg_namespace') as comment into home
        from pg_namespace n where n.nspname = 'dcm_ws';
    if home.oid is not null then
        if not exists (select from pg_roles r where r.rolname = home.owner and (r.rolname = wanted or @trusted@)) then
            raise exception 'the schema dcm_ws belongs to %', home.owner
                using hint = format('if it is that of dcm-ws, use --owner %s; otherwise rename or drop it', home.owner);
        end if;
        select c.relname as name, pg_get_userbyid(c.relowner) as owner into one from pg_class c
            where c.relnamespace = home.oid and pg_get_userbyid(c.relowner) <> home.owner
        union all
        select p.proname, pg_get_userbyid(p.proowner) from pg_proc p
            where p.pronamespace = home.oid and pg_get_userbyid(p.proowner) <> home.owner
        limit 1;
        if one.name is not null then
            raise exception 'dcm_ws.% belongs to %, but the schema dcm_ws to %', one.name, one.owner, home.owner
                using hint = 'drop it, or rename it';
        elsif home.comment is null or home.comment !~ '^@mark@ [0-9]{1,9}$' then
            raise exception 'the schema dcm_ws was not made by dcm-ws' using hint = 'rename it, or use --without-log';
        elsif not pg_has_role(home.owner, 'usage') then
            raise exception 'the schema dcm_ws belongs to %, and % may not change it', home.owner, current_user
                using hint = format('run init-db as %s, or use --without-log', home.owner);
        end if;
        version := substring(home.comment from '[0-9]+$')::int;
    end if;
