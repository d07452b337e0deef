-- The journal of all agents, or of one.
select case
    when %(agent)s::text is null then changes::text
    else jsonb_build_object(%(agent)s, changes -> %(agent)s)::text
end
from dcm_ws.ack
where %(agent)s::text is null or changes ? %(agent)s
order by seq
