"""
The engines behind the ports of the core.
"""
