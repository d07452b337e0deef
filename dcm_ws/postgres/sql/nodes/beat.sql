-- A node says that it is there, unless it is fenced, and learns how many nodes there are.
update dcm_ws.node
set seen_at = now(), leader = %(leader)s, draining = %(draining)s, figures = %(figures)s::jsonb
where id = %(node)s and not fenced
returning (select count(*) from dcm_ws.node where not fenced)
