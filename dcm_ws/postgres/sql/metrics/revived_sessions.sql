-- Sessions that have ended, but have a recent action.
select count(*) as revived_sessions
from @sessions@
where ended_at is not null
    and @id@ in (select @session_id@ from @actions@ where created_at > now() - interval '15 minutes')
