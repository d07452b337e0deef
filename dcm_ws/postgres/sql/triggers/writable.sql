-- Statements of a DO block: raise an exception on a read-only server.
    if current_setting('transaction_read_only')::boolean then
        raise exception 'the server is read-only (a standby?)' using hint = 'connect to the primary server';
    end if;
