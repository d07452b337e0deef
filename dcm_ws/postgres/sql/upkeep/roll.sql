-- Gives the newest partition of the log its end, and makes another one after it.
alter table dcm_ws.log detach partition dcm_ws.@newest@;
alter table dcm_ws.log attach partition dcm_ws.@newest@ for values from (@start@) to (@end@);
create table dcm_ws.@next@ partition of dcm_ws.log for values from (@end@) to (maxvalue);
update dcm_ws.meta set base = %(head)s, snapshot = %(snapshot)s
