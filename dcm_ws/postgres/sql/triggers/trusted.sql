-- A condition on a row r of pg_roles: the role may change what init-db installs anyway.
r.rolsuper or r.rolname = current_user or (
    pg_has_role(r.oid, 'usage') and not (select rolsuper from pg_roles where rolname = current_user))
