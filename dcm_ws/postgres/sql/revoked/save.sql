-- Revokes the tokens of an agent, and forgets revocations that are older than all tokens.
with expired as (
    delete from dcm_ws.revoked where revoked_at <= %(after)s and agent <> %(agent)s
)
insert into dcm_ws.revoked as known (agent, revoked_at) values (%(agent)s, %(revoked_at)s)
on conflict (agent) do update set revoked_at = greatest(known.revoked_at, excluded.revoked_at)
returning revoked_at
