select count(*)::float8 / 5 as actions_per_minute
from @actions@
where created_at > now() - interval '5 minutes'
