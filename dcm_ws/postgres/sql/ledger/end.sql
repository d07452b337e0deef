-- The end of the newest partition of the ledger: beyond the log, and all that is in it.
select greatest(%(head)s, (select max(upto) from dcm_ws.@newest@)) + 1
