"""
The state of the service without I/O: sessions, subscriptions, deliveries, budgets.  Time and randomness are arguments.
"""
