-- Puts what clients have published at a node that does not lead into the inbox, in its order, and wakes the leader unless
-- that polls.
with put as (
    insert into dcm_ws.inbox (slot, event_id, channel, event, data, at, sender, key, named, publisher, mirrored)
    select meta.slot, given.event_id, given.channel, given.event, given.data, given.at, given.sender, given.key,
        given.named, given.publisher, given.mirrored
    from dcm_ws.meta
    cross join rows from (json_to_recordset(%(events)s) as (event_id text, channel text, event text, data text, at bigint,
        sender text, named text, publisher text, key text, mirrored boolean)) with ordinality
        as given (event_id, channel, event, data, at, sender, named, publisher, key, mirrored, number)
    order by given.number
), gate as materialized (
    select pg_try_advisory_lock_shared(1684237687, 2) as is_open
)
select case when is_open then pg_advisory_unlock_shared(1684237687, 2) end,
    case when is_open then pg_notify('dcm_ws_wake', '')::text end
from gate
