"""
The MCP server: an agent's events and publishes as tools, resources and notifications for a model.
"""
