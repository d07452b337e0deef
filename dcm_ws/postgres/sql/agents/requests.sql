-- What operators want to be done with dead letters.
select agent, event_id, request from dcm_ws.dead where request is not null order by died_at, pos limit %(most)s
