"""
Everything that speaks HTTP, and the port for both protocols.
"""
