"""
Why a service cannot start.
"""

from __future__ import annotations


class StartError(Exception):
    """
    The service cannot start; the text gives the reason in one line.
    """
