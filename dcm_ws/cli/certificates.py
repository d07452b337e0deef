"""
The certificate authorities that C{--cacert} names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    # 10 ms to import, which commands can do without that connect without TLS
    import ssl

# X509_V_ERR_* of OpenSSL: not yet valid, expired, another host, another address
_OTHER = (9, 10, 62, 64)


def trusting(file: str | None) -> ssl.SSLContext | None:
    """
    What only trusts the authorities in a file.

    @param file: None for the system's authorities.
    @return: None for those.
    @raise click.ClickException: the file cannot be read, or there is no certificate in it.
    """
    if file is None:
        return None
    import ssl

    try:
        return ssl.create_default_context(cafile=file)
    except ssl.SSLError:
        raise click.ClickException(
            f"there is no certificate in {file!r}: --cacert takes a file in PEM format"
        ) from None
    except OSError as error:
        raise click.ClickException(f"cannot read the certificates in {file!r}: {error.strerror}") from None


def advice(error: BaseException | None) -> str:
    """
    What to do about an error, to be appended to its text; empty if it is not about the authority of a certificate.
    """
    import ssl

    # urllib wraps it
    causes = (error, getattr(error, "reason", None))
    if any(isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code not in _OTHER for cause in causes):
        return " (if it is from a private authority, give the authority's certificate with --cacert)"
    return ""
