select count(distinct @agent_id@) as active_agents
from @subtasks@
where @status@ = 'running'
