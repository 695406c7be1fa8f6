"""Certificate and secret key in files, which are read again when they change."""

from __future__ import annotations

import ssl
from pathlib import Path


class InvalidCertificate(ValueError):
    """The files are no certificate and its key. The message names them."""


class TlsFiles:
    """Certificate chain and secret key, in PEM.

    Attributes:
        context: for listeners. A reload changes what the next handshake uses; open connections go on.

    Raises:
        OSError: a file cannot be read.
        InvalidCertificate: the files are no certificate and its key.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate = certificate
        self.key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self.reload()

    def reload(self) -> None:
        """Read the files again. If that fails, the certificate of before stays.

        Raises:
            OSError: a file cannot be read.
            InvalidCertificate: the files are no certificate and its key.
        """
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
        except ssl.SSLError as error:
            raise InvalidCertificate(
                f"{self.certificate} and {self.key} are no certificate and its key, in PEM: {error.reason}"
            ) from None
        self.context.load_cert_chain(self.certificate, self.key)
