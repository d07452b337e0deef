"""
TLS of connections to NATS servers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class NatsCertificateError(ValueError):
    """
    A file has no certificates; the text says which one.
    """


def tls_options(ca: Path | None) -> Callable[[str], Any]:
    """
    Make a function that returns the context of a connection to a server, given the name that its certificate must be
    for.

    @param ca: a file with the certificates of the authorities that are trusted, in PEM; None for those of the system.
    @raise NatsCertificateError: there is no certificate in it.
    @raise OSError: it cannot be read.
    """
    if ca is None:
        trust = platformTrust()
    else:
        try:
            certificates = [Certificate.loadPEM(pem) for pem in _CERTIFICATE.findall(ca.read_bytes())]
        except Exception as error:
            # what OpenSSL raises has no common class
            if isinstance(error, OSError):
                raise
            raise NatsCertificateError(f"{ca} has a certificate that cannot be read") from None
        if not certificates:
            raise NatsCertificateError(f"there is no certificate in {ca}")
        trust = trustRootFromCertificates(certificates)
    return lambda name: optionsForClientTLS(name, trustRoot=trust)
