-- Gives the newest partition of the ledger its end, and makes another one after it.
alter table dcm_ws.ledger attach partition dcm_ws.@newest@ for values from (@start@) to (@end@);
create table dcm_ws.@next@ partition of dcm_ws.ledger for values from (@end@) to (maxvalue)
