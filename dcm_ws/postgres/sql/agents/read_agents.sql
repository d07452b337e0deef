-- The next states of agents: most %(most)s and, beyond the first one, %(bytes)s bytes.
select agent, state, gen from (
    select agent, state, gen, sum(octet_length(state)) over (order by agent) - octet_length(state) as before
    from (
        select agent, state::text, gen from dcm_ws.agent where agent > %(after)s order by agent limit %(most)s
    ) as next
) as counted
where before < %(bytes)s order by agent
