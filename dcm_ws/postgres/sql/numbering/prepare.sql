-- One numbering step: gives positions to all events that were committed since the last step, and to what clients have
-- published here.  It is the only thing that writes to dcm_ws.log, in the session that holds the leader's lock.
-- What is new since a snapshot: what was written by transactions that began after it, and by those that were open then and
-- are not any more.  So it waits for nobody, and a transaction that is open for hours hides nothing and costs nothing.
-- Of events with the same key, those are dropped that were published within ten minutes after the first one, however
-- late the step is.
-- Within a step, events are in the order in which publish() was called, never in that of their transactions' numbers.
-- $1, $2: xmax and xip of the snapshot of the last step; $3: the last position; $4: an older position, an hour ago or
-- longer; $5: what clients have published, as JSON; $6, $7: the most rows and bytes of others' events to return;
-- $8: notify the other nodes of a cluster.
prepare dcm_ws_step (xid8, xid8[], bigint, bigint, json, bigint, bigint, boolean) as
with cur as materialized (
    select pg_current_snapshot() as snapshot, clock_timestamp() as now
), ended as materialized (
    select array(
        select open from unnest($2) as open except select pg_snapshot_xip(snapshot) from cur
    ) as transactions
), given as materialized (
    select 0 as source, id as number, event_id, channel, event, data, at, sender, named, publisher, key,
        coalesce(mirrored, channel not in ('global', 'metrics')) as mirrored
    from dcm_ws.inbox where xid >= $1
    union all
    select 0, id, event_id, channel, event, data, at, sender, named, publisher, key,
        coalesce(mirrored, channel not in ('global', 'metrics'))
    from dcm_ws.inbox where xid = any ((select transactions from ended)::xid8[])
    union all
    select 1, number, event_id, channel, event, data, at, sender, named, publisher, key, mirrored
    from rows from (json_to_recordset($5) as (event_id text, channel text, event text, data text, at bigint, sender text,
        named text, publisher text, key text, mirrored boolean)) with ordinality
        as client (event_id, channel, event, data, at, sender, named, publisher, key, mirrored, number)
), timed as materialized (
    -- which ten minutes each belongs to, of those that begin with the first one of its key
    select source, number, key, at, (at - min(at) over (partition by key)) / 600000 as part
    from given where key is not null
), keyed as materialized (
    select source, number, key, part, row_number() over (partition by key, part order by source, number) as nth, (
        select log.pos from dcm_ws.log as log
        where log.key = timed.key and log.pos > $4 and log.at > timed.at - 600000
        -- not by pos alone: then PostgreSQL may look for the key in the order of pos, through the whole log
        order by log.pos + 0 limit 1) as first
    from timed
), placed as materialized (
    select $3 + row_number() over (order by source, number) as pos, given.*
    from given
    where key is null or (source, number) in (select source, number from keyed where nth = 1 and first is null)
), kept as materialized (
    select keyed.key, keyed.part, placed.pos, placed.event_id
    from keyed join placed using (source, number)
), total as materialized (
    select count(*) as events, count(*) filter (where source = 0) as others,
        coalesce(sum(octet_length(data)) filter (where source = 0), 0) as bytes
    from placed
), put as (
    insert into dcm_ws.log
        (pos, event_id, channel, event, data, at, sender, named, publisher, key, mirrored, logged_at, snapshot)
    select pos, event_id, channel, event, data, at, sender, named, publisher, key, mirrored, now,
        case when pos = $3 + events then snapshot end
    from placed, total, cur
)
-- first the step itself, then the events
select 'step' as kind, $3 + events as pos, others as number, snapshot::text as event_id,
    case when $8 and events > 0 then pg_notify('dcm_ws_head', '')::text end as channel,
    null::text as event, null::text as data, null::bigint as at, null::text as sender, null::text as named,
    null::text as publisher, null::boolean as mirrored
from total, cur
union all
select case source when 0 then 'other' else 'client' end, pos, number,
    case source when 0 then event_id end, case source when 0 then channel end, case source when 0 then event end,
    case source when 0 then data end, at, case source when 0 then sender end, case source when 0 then named end,
    case source when 0 then publisher end, mirrored
from placed, total
where source = 1 or (others <= $6 and bytes <= $7)
union all
select 'again', coalesce(keyed.first, kept.pos), keyed.number,
    coalesce((select event_id from dcm_ws.log where pos = keyed.first), kept.event_id),
    null, null, null, null, null, null, null, null
from keyed left join kept using (key, part)
where keyed.source = 1 and (keyed.nth > 1 or keyed.first is not null)
