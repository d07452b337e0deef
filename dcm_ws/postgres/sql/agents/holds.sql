-- Part of each statement that a node of a cluster writes with: has a row only if the node is not fenced, and is not until
-- the statement is done, and if the log has what was delivered there.
holds as materialized (
    select from dcm_ws.node cross join dcm_ws.meta
    where node.id = %(node)s and not node.fenced and meta.epoch = %(epoch)s
        and @delivered@
    for share of node
)
