-- The agents whose tokens were revoked, the last ones first.
select agent, revoked_at from dcm_ws.revoked where revoked_at > %(after)s order by revoked_at desc limit %(most)s
