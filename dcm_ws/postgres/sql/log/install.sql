-- Creates or migrates the schema of the log.  If it is up to date, nothing is changed.
-- A schema of our name, or an object in it, that belongs to somebody else is an error.
do $log$
declare
    wanted name := coalesce(@owner@, current_user);
    grantees name[] := @grantees@;
    before text := current_setting('role');
    version int := 0;
    home record;
    one record;
    complete boolean := true;
    granted name[];
    role name;
    granted_function text;
begin
@writable@
@home@
    if current_setting('server_version_num')::int < 130000 then
        raise exception 'the durable log needs PostgreSQL 13 or newer' using hint = 'use --without-log';
    elsif getdatabaseencoding() <> 'UTF8' then
        raise exception 'the durable log needs a database in UTF8; this one is in %', getdatabaseencoding()
            using hint = 'use --without-log, or a database in UTF8';
    elsif version > @version@ then
        raise exception 'the schema dcm_ws is of version %; this dcm-ws knows versions up to @version@', version
            using hint = 'use the newer dcm-ws that installed it';
    elsif home.oid is null then
        if not has_database_privilege(current_database(), 'create') then
            raise exception '% may not create the schema dcm_ws of the durable log', current_user using hint = format(
                'run: grant create on database %I to %I; or use --without-log', current_database(), current_user);
        end if;
        execute format('create schema dcm_ws authorization %I', wanted);
        home.owner := wanted;
        grantees := coalesce(nullif(grantees, '{}'), array['public']);
    end if;
    execute format('set local role %I', home.owner);
@steps@
    if version < @version@ then
        update dcm_ws.meta set version = @version@;
        comment on schema dcm_ws is '@mark@ @version@';
    end if;
    for one in select f.*, to_regprocedure(f.name) as found from (values @functions@) as f (name, code) loop
        perform 1 from pg_proc p where p.oid = one.found and p.prosrc = split_part(one.code, '$body$', 2);
        if not found then
            execute one.code;
        end if;
        if one.found is null then
            execute format('revoke all on function %s from public', one.name);
            complete := false;
        end if;
    end loop;
    granted := array(
        select distinct coalesce(pg_get_userbyid(nullif(a.grantee, 0))::name, 'public')
        from pg_namespace n, aclexplode(n.nspacl) as a
        where n.nspname = 'dcm_ws' and a.grantee <> n.nspowner and a.privilege_type = 'USAGE' order by 1);
    grantees := coalesce(nullif(grantees, '{}'), granted);
    if grantees <> granted or not complete then
        foreach role in array granted loop
            execute format('revoke all on schema dcm_ws from %I', role);
            execute format('revoke all on all functions in schema dcm_ws from %I', role);
        end loop;
        foreach role in array grantees loop
            execute format('grant usage on schema dcm_ws to %I', role);
            foreach granted_function in array @open@::text[] loop
                execute format('grant execute on function %s to %I', granted_function, role);
            end loop;
        end loop;
    end if;
    execute format('set local role %I', before);
end $log$;
