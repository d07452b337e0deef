-- The states of all agents, or of one.
select agent, state::text, gen from dcm_ws.agent where %(agent)s::text is null or agent = %(agent)s
