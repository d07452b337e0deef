"""
A client of NATS on Twisted: as much of it as a bus between nodes needs.
"""
