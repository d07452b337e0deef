-- Writes what has changed since the last time: to the journal, and to the dead letters.
with @leads@, @letters@, written as (
    insert into dcm_ws.ack (changes)
    select changes from leads, (values (%(changes)s::jsonb)) given (changes) where changes is not null
    returning seq
)
select exists (select from leads), (select seq from written)
