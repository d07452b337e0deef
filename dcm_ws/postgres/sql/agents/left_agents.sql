-- Those of some agents that no node has.
select known.agent, known.state::text, known.gen
from dcm_ws.agent known
left join dcm_ws.node owner on owner.id = known.node and not owner.fenced
where known.agent = any (%(agents)s::text[]) and owner.id is null
