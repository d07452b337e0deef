"""
Chaos tests of the durable log: a service, its database and its clients are disturbed, and a judge that shares no code
with the service compares what was published, what is in the log, and what clients received.
"""
