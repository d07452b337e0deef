-- The session that got the leader's lock: from now on, what an earlier leader writes is refused.  Waits for what that one
-- is writing now, so that it can be read.
update dcm_ws.meta set leader = leader + 1 returning leader, epoch
