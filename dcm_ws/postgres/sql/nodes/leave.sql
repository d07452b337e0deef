-- A node ends.  From now on, what it still writes is refused.
update dcm_ws.node set fenced = true, leader = false, seen_at = now() where id = %(node)s
