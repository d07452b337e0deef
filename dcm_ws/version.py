"""
Which version this is.
"""

VERSION = "2.0.0"
"""
Kept in step with C{setup.cfg} by reading it from here.
"""

SERVER = f"dcm-ws/{VERSION}"
"""
How the service introduces itself.
"""
