-- Part of each statement that a node of a cluster writes with: has a row only if the node is not fenced, and is not until
-- the statement is done, and if the log has what was delivered there.
holds as materialized (
    select from dcm_ws.node cross join dcm_ws.meta
    where node.id = %(node)s and not node.fenced and meta.epoch = %(epoch)s
        and not exists (select from dcm_ws.log where pos = %(pos)s and event_id <> %(event_id)s)
        and %(pos)s <= greatest(meta.base, (select pos from dcm_ws.log order by pos desc limit 1))
    for share of node
)
