select count(*) as messages_last_hour
from @agent_messages@
where created_at > now() - interval '1 hour'
