-- A node says that it is there, unless it is fenced.
update dcm_ws.node
set seen_at = now(), leader = %(leader)s, draining = %(draining)s, figures = %(figures)s::jsonb
where id = %(node)s and not fenced
returning id
