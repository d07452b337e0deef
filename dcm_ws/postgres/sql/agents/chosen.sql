-- Which dead letters an operator means: part of the queries that list, redrive and purge them.
(%(agent)s::text is null or agent = %(agent)s)
and (%(event_ids)s::text[] is null or event_id = any (%(event_ids)s::text[]))
and (%(reasons)s::text[] is null or reason = any (%(reasons)s::text[]))
and (%(since)s::bigint is null or died_at >= %(since)s)
and (%(until)s::bigint is null or died_at < %(until)s)
