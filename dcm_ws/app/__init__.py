"""
The composition: settings, the service that joins all parts, and the process of C{twistd dcm-ws}.
"""
