-- Part of each statement that writes: has a row only if nobody else has become the leader, and nobody does until the
-- statement is done.
leads as materialized (
    select from dcm_ws.meta where leader = %(leader)s and epoch = %(epoch)s for share
)
