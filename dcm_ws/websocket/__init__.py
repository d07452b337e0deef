"""
WebSocket connections on Autobahn.
"""
