"""
Certificates for tests: signed by themselves, or by an authority of the test's own.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class Certificate:
    """
    A certificate for 127.0.0.1, and for names of this machine, that is signed by itself.

    @param until: hours from now until it expires.

    @ivar key: the file with its key.
    @ivar file: the file with the certificate.
    @ivar trusting: the TLS of a client that trusts it, and no other.
    @ivar threaded: the same for clients of C{websockets.sync}, which write in one thread while they read in another.
        OpenSSL allows no such thing, and with TLS 1.3, in which tickets arrive at any time, it breaks connections.
    """

    def __init__(self, folder: Path, *names: str, until: float = 1) -> None:
        key, name = _new_key(), _name("dcm-ws test")
        hosts = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *map(x509.DNSName, names)]
        pem = _sign(name, name, key, key, hosts, until)
        self.key, self.file = folder / "key.pem", folder / "cert.pem"
        self.key.write_bytes(_private(key))
        self.file.write_bytes(pem)
        self.trusting = ssl.create_default_context(cadata=pem.decode())
        self.threaded = ssl.create_default_context(cadata=pem.decode())
        self.threaded.maximum_version = ssl.TLSVersion.TLSv1_2

    def endpoint(self, port: int = 0) -> str:
        """
        A Twisted endpoint that listens with it on 127.0.0.1.
        """
        return f"ssl:{port}:interface=127.0.0.1:privateKey={self.key}:certKey={self.file}"


class Authority:
    """
    A certificate authority, and a certificate that it has signed for one host.

    @ivar trusting: the TLS of a client that trusts it, and no other.
    @ivar files: the certificate and its key in the files that the documented configurations of proxies name.
    """

    def __init__(self, host: str) -> None:
        authority, authority_key, key = _name("dcm-ws test authority"), _new_key(), _new_key()
        root = _sign(authority, authority, authority_key, authority_key)
        chain = _sign(_name(host), authority, key, authority_key, [x509.DNSName(host)])
        private = _private(key)
        self.files = {"fullchain.pem": chain, "privkey.pem": private, "both.pem": chain + private}
        self.trusting = ssl.create_default_context(cadata=root.decode())


_AUTHORITY_USAGE = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _sign(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    hosts: Sequence[x509.GeneralName] = (),
    until: float = 1,
) -> bytes:
    """
    A certificate in PEM, which is valid for C{until} hours; without C{hosts} it is that of an authority.
    """
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=until))
    )
    identifiers = (
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        # since Python 3.13 a client insists on it, and on the usage of an authority's key
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
    )
    for identifier in identifiers:
        builder = builder.add_extension(identifier, critical=False)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    # a client that is given a certificate signed by itself does not ask whether it is an authority's
    if not hosts or issuer != subject:
        constraints = x509.BasicConstraints(ca=not hosts, path_length=None)
        builder = builder.add_extension(constraints, critical=True)
    if not hosts:
        builder = builder.add_extension(_AUTHORITY_USAGE, critical=True)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.PEM)
