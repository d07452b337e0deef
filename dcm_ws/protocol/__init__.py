"""
The wire protocol as values: bytes to commands, events to frames.  Nothing here keeps state.
"""
