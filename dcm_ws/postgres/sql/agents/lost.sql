-- Which of some agents have been taken since they had these numbers, and by which nodes.
select known.agent, known.node
from json_to_recordset(%(agents)s) as given (agent text, gen bigint)
join dcm_ws.agent known on known.agent = given.agent
where known.gen <> given.gen
