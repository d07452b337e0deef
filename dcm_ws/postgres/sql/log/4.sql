-- Step 4 of the migrations: the ledger, which says what became of each event at each agent, and an index of the events by
-- their ids.  A large log is not indexed here, since nobody could publish meanwhile: its next partitions are.
create table dcm_ws.ledger (
    upto bigint not null,
    first bigint not null,
    node bigint,
    at timestamptz not null default now(),
    entries text not null
) partition by range (upto);
comment on table dcm_ws.ledger is 'what became of events at agents: pages of JSON, each with the positions from first to upto';
comment on column dcm_ws.ledger.node is 'the node of a cluster that wrote the page';
create index ledger_upto on dcm_ws.ledger (upto);
create table dcm_ws.ledger_1 partition of dcm_ws.ledger for values from (minvalue) to (maxvalue);

do $index$
begin
    if (select sum(pg_relation_size(relid)) from pg_partition_tree('dcm_ws.log')) < 256 << 20 then
        create index log_event_id on dcm_ws.log (event_id);
    else
        create index log_event_id on only dcm_ws.log (event_id);
    end if;
end
$index$;
