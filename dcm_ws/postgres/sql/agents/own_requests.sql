-- What operators want to be done with dead letters of agents that a node of a cluster has.
select letter.agent, letter.event_id, letter.pos, letter.channel, letter.event, letter.data, letter.at, letter.sender,
    letter.deliveries, letter.reason, letter.died_at, letter.redriven_at, letter.request
from dcm_ws.dead letter join dcm_ws.agent known on known.agent = letter.agent and known.node = %(node)s
where letter.request is not null
order by letter.died_at, letter.pos limit %(most)s
