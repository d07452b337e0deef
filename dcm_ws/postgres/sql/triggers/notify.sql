-- The body of the trigger function, dcm_ws_notify().  Its text is compared with that of installed functions: raise the
-- version in triggers.py with each change of it.
-- Columns are read by name from JSON, because a table of an older installation may lack some of them.
-- An UPDATE that moves a row to another partition fires as a DELETE followed by an INSERT.  The DELETE stores the old row
-- in a setting of the transaction, and the INSERT compares the new row with it.  A DELETE that moves nothing clears the
-- setting at its end, when the trigger of the statement fires.
-- In the text of jsonb, digits outside of strings belong to numbers.
-- Where the durable log is in use, dcm_ws.publish() takes events of any usual size; else they are notified.  The owner of
-- its functions is checked, because this one runs with the rights of those who write to the table.
-- The blocks with an exception handler are not nested: each that writes takes a number of a transaction.
declare
    fresh jsonb;
    stale jsonb;
    sent jsonb;
    options jsonb;
    omitted jsonb;
    event text;
    channel text;
    stamp bigint;
    payload text;
    logged boolean;
    cuts int := 0;
begin
    begin
        if tg_op = 'DELETE' then
            if tg_level = 'STATEMENT' then
                perform set_config('dcm_ws.moved', '', true);
                return null;
            end if;
            stale := to_jsonb(old);
            perform set_config('dcm_ws.moved', jsonb_build_object(
                'table', tg_argv[0], 'at', statement_timestamp(), 'row', (
                    select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(stale)
                    where key in ('id', 'status', 'ended_at', 'read_at', 'read_by', 'expires_at')))::text, true);
            return null;
        end if;
        -- not where they are declared: an error there would be the transaction's
        fresh := to_jsonb(new);
        options := coalesce(tg_argv[1]::jsonb, '{}');
        stamp := floor(extract(epoch from clock_timestamp()) * 1000);
        if tg_op = 'UPDATE' then
            stale := to_jsonb(old);
            if fresh = stale then
                return null;
            end if;
        elsif coalesce(current_setting('dcm_ws.moved', true), '') <> '' then
            sent := current_setting('dcm_ws.moved', true)::jsonb;
            if sent->>'table' = tg_argv[0] and sent->'at' = to_jsonb(statement_timestamp())
                and sent->'row'->'id' = fresh->'id' then
                stale := sent->'row';
                perform set_config('dcm_ws.moved', '', true);
            end if;
        end if;
        if tg_argv[0] = 'sessions' then
            channel := 'sessions/' || nullif(fresh->>'id', '');
            event := case
                when stale is null then 'session.created'
                when stale->>'ended_at' is null and fresh->>'ended_at' is not null then 'session.ended'
            end;
        elsif tg_argv[0] = 'agent_messages' then
            channel := coalesce('agents/' || nullif(fresh->>'to_agent_id', ''), 'topics/' || nullif(fresh->>'topic', ''));
            event := case
                when stale is null then 'message.new'
                when stale->>'read_at' is null and fresh->>'read_at' is not null then 'message.read'
                when jsonb_typeof(fresh->'read_by') = 'array'
                    and not case when jsonb_typeof(stale->'read_by') = 'array' then stale->'read_by' else '[]' end
                        @> (fresh->'read_by') then 'message.read'
                when case when jsonb_typeof(fresh->'expires_at') = 'string' then
                    (fresh->>'expires_at')::timestamptz <= now()
                    and ((stale->>'expires_at')::timestamptz > now() or stale->>'expires_at' is null)
                end then 'message.expired'
            end;
        else
            channel := 'agents/' || nullif(fresh->>'agent_id', '');
            event := case tg_argv[0] when 'task_lists' then 'task.' else 'subtask.' end || case
                when stale is null then 'created'
                when fresh->>'status' is distinct from stale->>'status' and (
                    fresh->>'status' in ('completed', 'failed')
                    or (fresh->>'status' = 'running' and tg_argv[0] = 'subtasks')) then fresh->>'status'
                else 'updated'
            end;
        end if;
        if event is null or not coalesce(options->'events' ? event, true) then
            return null;
        end if;
        if channel is null or octet_length(channel) > @channel_max@ then
            channel := 'global';
        end if;
        sent := fresh;
        if options ? 'exclude' or octet_length(fresh::text) > @value_max@ then
            select coalesce(jsonb_object_agg(key, value) filter (where not large), '{}'),
                jsonb_agg(key order by key) filter (where large)
            into sent, omitted
            from (
                select key, value, octet_length(value::text) > @value_max@ and not coalesce(
                    options->'include' ?| array[key, tg_argv[0] || '.' || key], false) as large
                from jsonb_each(fresh)
                where not coalesce(options->'exclude' ?| array[key, tg_argv[0] || '.' || key], false)) as columns;
            sent := sent || case when omitted is null then '{}' else jsonb_build_object('omitted', omitted) end;
        end if;
        select count(*) = 2 into logged
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = 'dcm_ws'
            and (p.proname = 'publish' and p.proargtypes = '25 25 25 25' or p.proname = 'in_use' and p.pronargs = 0)
            and has_schema_privilege(n.oid, 'usage') and has_function_privilege(p.oid, 'execute')
            and exists (select from pg_roles r where r.oid = p.proowner and (
                r.rolsuper or r.rolname = options->>'publisher'
                or r.oid = (select c.relowner from pg_class c where c.oid = tg_relid)
                or r.oid = (select f.proowner from pg_trigger t join pg_proc f on f.oid = t.tgfoid
                    where t.tgrelid = tg_relid and t.tgname = tg_name)));
        if logged then
            logged := dcm_ws.in_use();
        end if;
    exception when others then
        -- an event is not worth the transaction that it tells of
        raise warning 'dcm-ws: no event for this change of %: %', tg_table_name, sqlerrm;
        return null;
    end;
    for attempt in 1..4 loop
        begin
            payload := case when logged then sent else
                jsonb_build_object('channel', channel, 'event', event, 'data', sent, 'timestamp', stamp) end::text;
            if payload ~ '[0-9]{16}' then
                -- numbers that JavaScript would round
                select string_agg(
                    case when token[1] ~ '^-?[0-9]' and abs(token[1]::numeric) > 9007199254740991
                        then '"' || token[1] || '"' else token[1] end, '' order by place)
                into payload
                from regexp_matches(payload, E'"(?:[^"\\\\]|\\\\.)*"|-?[0-9][0-9.]*|[^"0-9-]+', 'g')
                    with ordinality as found (token, place);
            end if;
            if logged then
                perform dcm_ws.publish(channel, event, payload);
                return null;
            elsif octet_length(payload) <= @payload_max@ then
                perform pg_notify('dcm_events', payload);
                return null;
            end if;
            raise program_limit_exceeded;
        exception
            when invalid_parameter_value then
                -- not a channel
                if channel = 'global' then
                    raise warning 'dcm-ws: no event for this change of %: %', tg_table_name, sqlerrm;
                    return null;
                end if;
                channel := 'global';
            when program_limit_exceeded then
                -- the keys, and then nothing
                select coalesce(jsonb_object_agg(key, value) filter (where cuts = 0), '{}') || '{"truncated": true}'
                into sent
                from jsonb_each(sent)
                where (key in ('id', 'status') or right(key, 3) = '_id') and octet_length(value::text) <= @value_max@;
                cuts := cuts + 1;
            when others then
                raise warning 'dcm-ws: no event for this change of %: %', tg_table_name, sqlerrm;
                return null;
        end;
    end loop;
    raise warning 'dcm-ws: no event for this change of %: it is too large', tg_table_name;
    return null;
end
