"""
Everything that speaks HTTP, and the port in front of both protocols.
"""
