-- A service uses the log: its limits hold for what is published in SQL as well, and triggers publish from now on.
update dcm_ws.meta set opened_at = coalesce(opened_at, now()), max_bytes = %(bytes)s, max_depth = %(depth)s
where opened_at is null or (max_bytes, max_depth) <> (%(bytes)s, %(depth)s)
