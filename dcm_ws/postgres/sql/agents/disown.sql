-- A service without a cluster has read all agents: from now on its changes count, which have no number.
with @leads@
update dcm_ws.agent set node = null, gen = 0 from leads where gen <> 0 or node is not null
