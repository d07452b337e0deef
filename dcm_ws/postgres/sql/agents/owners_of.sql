-- Who has some agents: the nodes that are not fenced.
select known.agent, owner.id
from dcm_ws.agent known join dcm_ws.node owner on owner.id = known.node and not owner.fenced
where known.agent = any (%(agents)s::text[])
