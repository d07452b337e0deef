-- How many dead letters some agents have.
select agent, count(*) from dcm_ws.dead where agent = any (%(agents)s::text[]) group by agent
