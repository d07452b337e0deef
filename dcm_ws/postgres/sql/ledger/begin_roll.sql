-- Begins to give the newest partition of the ledger its end: nobody writes to it meanwhile.
alter table dcm_ws.ledger detach partition dcm_ws.@newest@
