-- Part of statements that read dcm_ws.meta: the log has, or had, the last event that was delivered at a node.  If not, it
-- was replaced by that of a backup.
not exists (select from dcm_ws.log where log.pos = @pos@ and log.event_id <> @event_id@)
        and @pos@ <= greatest(meta.base, (select log.pos from dcm_ws.log order by log.pos desc limit 1))
