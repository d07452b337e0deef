-- This node has delivered events that the log does not have any more: its positions are no longer good.
update dcm_ws.meta set epoch = left(md5(gen_random_uuid()::text), 8) where epoch = %(epoch)s
