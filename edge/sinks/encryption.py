"""Encryption: TLS as every way out uses it (PS3.15 B.9: BCP 195), and its failures."""

from __future__ import annotations

import ssl

from edge.config import Audit, Encrypted
from edge.errors import Misconfigured

ENDED = "the peer ended the handshake"
"""What it does, for one, where it does not speak TLS at all."""


def context(settings: Encrypted | Audit) -> ssl.SSLContext:
    """TLS 1.2 or newer; the peer's certificate and name are always checked.

    Raises `Misconfigured` when a file of the settings cannot be used.
    """
    try:
        made = ssl.create_default_context(cafile=settings.ca or None)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.certificate:
            made.load_cert_chain(settings.certificate, settings.key or None, password=_no_password)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        files = ", ".join(filter(None, (settings.ca, settings.certificate, settings.key)))
        raise Misconfigured(f"{files}: {getattr(error, 'strerror', '') or type(error).__name__}") from None
    return made


def _no_password() -> bytes:
    raise ValueError("nobody is there to type the password of a key")


def failed(error: ssl.SSLError) -> str:
    """What a failed handshake says: which side did not accept the other, and why."""
    verified = getattr(error, "verify_message", "")
    return f"its certificate: {verified}" if verified else (error.reason or ENDED).lower().replace("_", " ")
