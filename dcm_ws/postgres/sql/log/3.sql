-- Step 3 of the migrations: the agents whose tokens were revoked.
create table dcm_ws.revoked (
    agent text primary key,
    revoked_at bigint not null
);
comment on table dcm_ws.revoked is 'agents whose tokens were revoked by an operator';
comment on column dcm_ws.revoked.revoked_at is 'tokens that were issued up to then are refused, in ms since the epoch';
