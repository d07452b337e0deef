-- The next states of agents: most %(most)s and, beyond the first one, %(bytes)s bytes.
select agent, state from (
    select agent, state, sum(octet_length(state)) over (order by agent) - octet_length(state) as before
    from (
        select agent, state::text from dcm_ws.agent where agent > %(after)s order by agent limit %(most)s
    ) as next
) as counted
where before < %(bytes)s order by agent
