execute dcm_ws_step (%s, %s::text[]::xid8[], %s, %s, %s, %s, %s)
