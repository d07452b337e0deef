"""
The command C{dcm-ws}.
"""
