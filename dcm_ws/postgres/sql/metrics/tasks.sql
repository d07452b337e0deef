-- The mean leaves out infinite times, because JSON has no infinite numbers.  It subtracts seconds, because the longest
-- differences of times do not fit an interval.
select
    count(*) filter (where @status@ = 'pending') as pending_tasks,
    count(*) filter (where @status@ = 'running') as running_tasks,
    count(*) filter (where @status@ = 'completed' and completed_at > now() - interval '1 hour')
        as completed_tasks_last_hour,
    coalesce(
        avg((extract(epoch from completed_at@cast@) - extract(epoch from created_at@cast@)) * 1000)
            filter (where isfinite(completed_at) and isfinite(created_at)), 0)::float8 as avg_task_duration_ms
from @task_lists@
