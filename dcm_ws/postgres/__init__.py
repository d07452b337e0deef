"""
PostgreSQL: connections under the reactor, the listener, metrics, triggers, and the embedded server.
"""
