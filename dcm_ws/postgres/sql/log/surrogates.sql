-- Statements of publish.sql for data that may have escapes of characters.
    if position(E'\\u' in said) > 0 and said ~ E'\\\\u[dD][89a-fA-F]' then
        said := dcm_ws.repaired(said);
    end if;
