"""What must not be in a system that everybody can read: keys, hashes of passwords, anything that lets somebody in."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

PRIVATE = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----\s+(?:[A-Za-z0-9+/=,: -]+\s+){2,}")
HASHED = re.compile(rb"\$(?:1|5|6|y|gy|2[abxy]|argon2[id]{1,2})\$[^\s\"':]{20,}")
CLOUD = re.compile(rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bxox[abp]-[0-9A-Za-z-]{20,}")
WRITTEN = re.compile(
    rb"(?im)^[^#\n]*\b(?:pass(?:word|phrase)?|pin|secret|token|api_?key)\s*=\s*[\"']?[^\s\"'$%{(\[]{4,}"
)
NAMED = re.compile(r"(?:^|/)(?:id_(?:rsa|ecdsa|ed25519)|ssh_host_\w+_key|\.netrc|\.pgpass|[^/]*\.(?:key|p12|pfx|jks))$")
ACCOUNTS = re.compile(r"etc/g?shadow-?$")
SETTINGS = {".conf", ".toml", ".service", ".timer", ".mount", ".network", ".rules", ".cfg", ".ini", ".json"}


def leak(name: str, data: bytes, own: bool) -> str | None:
    """Why a file of a system must not be in it; None where it may. `own` files, this project's, are read more strictly."""
    if NAMED.search(name):
        return f"{name}: is named like a key"
    if ACCOUNTS.search(name):
        bad = [line for line in data.decode().splitlines() if not line.split(":")[1].startswith(("!", "*"))]
        return f"{name}: {bad[0].split(':')[0]} can sign in" if bad and "gshadow" not in name else None
    for what, pattern in (("a private key", PRIVATE), ("a cloud's key", CLOUD)):
        if pattern.search(data):
            return f"{name}: holds {what}"
    if (own or name.startswith("etc/")) and HASHED.search(data):
        return f"{name}: holds a hashed password"
    if own and PurePosixPath(name).suffix in SETTINGS and (found := WRITTEN.search(data)):
        return f"{name}: {found[0].decode(errors='replace').strip()}"
    return None
