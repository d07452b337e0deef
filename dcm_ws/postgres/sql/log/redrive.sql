-- Asks the service to send dead letters to their agents again, the oldest first: those that died at "since" or later,
-- and before "until".  Returns how many.
create or replace function dcm_ws.redrive(
    agent text default null, since timestamptz default null, until timestamptz default null, most int default 100
) returns int language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp as $body$
#variable_conflict use_variable
declare
    chosen int;
begin
    if most is null or most < 1 then
        raise exception 'dcm_ws.redrive: most must be 1 or more' using errcode = '22023';
    end if;
    with letters as (
        select d.agent, d.event_id from dcm_ws.dead d
        where (agent is null or d.agent = agent)
            and (since is null or d.died_at >= extract(epoch from since) * 1000)
            and (until is null or d.died_at < extract(epoch from until) * 1000)
            and d.request is null and d.redriven_at is null
        order by d.died_at, d.pos limit most for update skip locked)
    update dcm_ws.dead d set request = 'redrive' from letters l
        where d.agent = l.agent and d.event_id = l.event_id;
    get diagnostics chosen = row_count;
    if chosen > 0 then
        perform pg_notify('dcm_ws_wake', '');
    end if;
    return chosen;
end
$body$
