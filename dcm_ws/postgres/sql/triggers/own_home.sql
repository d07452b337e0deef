-- Statements of a DO block: raise an exception unless a trusted role owns the schema in which an object will be created.
            perform 1 from pg_namespace n where n.nspname = home
                and (n.nspowner = any (trusted) or pg_get_userbyid(n.nspowner) = 'pg_database_owner');
            if not found then
                raise exception 'the schema % belongs to somebody else', home
                    using hint = 'set the search path to a schema of your own';
            end if;
