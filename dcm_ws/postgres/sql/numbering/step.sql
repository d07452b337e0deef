execute dcm_ws_step (%(xmax)s, %(xip)s::text[]::xid8[], %(head)s, %(old)s, %(clients)s, %(rows)s, %(bytes)s, %(tell)s)
