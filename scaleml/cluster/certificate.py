"""The embedded cluster's certificate: made with it, known to its processes alone, and gone with it."""

from __future__ import annotations

import datetime as dt
import os
import pathlib
from typing import Final

_EVER: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
"""No end by the clock, which may be wrong: its file is removed with the cluster."""


def write_certificate(path: pathlib.Path) -> None:
    """Write a new key and a certificate for it, signed by itself, into a new file that only this user can read.

    Raises
    ------
    FileExistsError
        If there is such a file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "certificate.pem"
    ...     write_certificate(path)
    ...     oct(path.stat().st_mode & 0o777)
    '0o600'
    """
    # Here, for they take as long to import as to use, and only whoever starts an embedded cluster needs them.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "scaleml embedded cluster")])
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign", "encipher_only"),
        False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_EVER[0])
        .not_valid_after(_EVER[1])
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=True, decipher_only=False, **usage), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    content = key.private_bytes(encoding, form, serialization.NoEncryption()) + certificate.public_bytes(encoding)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)


def security_settings(path: pathlib.Path) -> dict[str, object]:
    """Return the arguments of Dask's ``Security`` for processes that have this certificate, and trust no other."""
    settings: dict[str, object] = {"require_encryption": True, "tls_ca_file": str(path), "tls_ciphers": None}
    for role in ("client", "scheduler", "worker"):
        settings[f"tls_{role}_cert"] = str(path)
        settings[f"tls_{role}_key"] = None  # it lies in the same file
    return settings
