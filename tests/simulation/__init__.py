"""
Clusters of many nodes in one process, with clocks and chances that can be repeated.
"""
