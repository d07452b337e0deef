select count(*) as open_sessions
from @sessions@
where ended_at is null
