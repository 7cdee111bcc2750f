"""The hub's settings: one strict TOML file that `edge/config.py` reads as it reads the box's, every key with its help beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from edge.config import HOST_NAME, Port, read


class Web(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where boxes and readers reach the hub (HTTPS)."""

    host: Annotated[str, Meta(description="Address to listen on; 0.0.0.0 lets boxes and readers reach it")] = (
        "127.0.0.1"
    )
    port: Annotated[Port, Meta(description="Port; 0 takes a free one")] = 8443
    names: Annotated[
        tuple[Annotated[str, Meta(pattern=HOST_NAME, max_length=253)], ...],
        Meta(min_length=1, max_length=8, description="The hub's names; set before its first start"),
    ] = ("localhost",)
    certificate: Annotated[
        str, Meta(description="File with a certificate chain and its key (PEM); empty makes one of the hub's own")
    ] = ""
    threads: Annotated[int, Meta(ge=2, le=256, description="Requests that are answered at a time")] = 16
    seconds: Annotated[
        float, Meta(gt=0, description="How long a silent connection is kept: longer than the links' usual outages")
    ] = 120.0


class Database(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where cases are kept."""

    postgresql: Annotated[
        str,
        Meta(description="Connection string of a PostgreSQL database; empty keeps everything in a file below `state`"),
    ] = ""


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where pictures are kept."""

    bucket: Annotated[
        str, Meta(pattern="^(s3://.+)?$", description="An S3 bucket, s3://name/prefix; empty keeps files below `state`")
    ] = ""
    endpoint: Annotated[str, Meta(description="Its address where it is not Amazon's")] = ""
    region: Annotated[str, Meta(description="Its region")] = "us-east-1"


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the programme has decided about reading."""

    routine: Annotated[
        bool, Meta(description="Films that the AI calls routine are read too, last; without, only a sample of them is")
    ] = True
    audit_share: Annotated[
        float, Meta(ge=0, le=1, description="Of the films that the AI calls routine, the share that is drawn for audit")
    ] = 0.1
    second_share: Annotated[
        float, Meta(ge=0, le=1, description="Of the films that were read, the share that is drawn for a second read")
    ] = 0.05
    impression_first: Annotated[
        bool, Meta(description="A reader says what they see before they are shown what the AI found")
    ] = True
    lease_minutes: Annotated[
        float, Meta(gt=0, le=240, description="So long after a reader's last sign of life their film is free again")
    ] = 15.0


class Readers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long people stay signed in."""

    idle_minutes: Annotated[
        float, Meta(gt=0, le=480, description="So long after the last touch a reader signs in again")
    ] = 30.0
    signed_in_hours: Annotated[float, Meta(gt=0, le=48, description="So long a reader stays signed in at most")] = 12.0


class Oidc(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The programme's own OpenID provider, by which people may sign in too; it asks for the second factor then."""

    issuer: Annotated[str, Meta(pattern="^(https?://.+)?$", description="Its issuer; empty where there is none")] = ""
    client_id: Annotated[str, Meta(description="What it knows this hub as")] = ""
    secret_file: Annotated[str, Meta(description="File with this hub's secret there")] = ""
    title: Annotated[str, Meta(description="What people call it")] = "OpenID"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of one hub; every key has a safe default."""

    state: Annotated[
        str,
        Meta(min_length=1, description="Folder of the hub's keys, and of database and pictures where these are here"),
    ] = "/var/lib/outpost-hub"
    web: Web = Web()
    database: Database = Database()
    store: Store = Store()
    policy: Policy = Policy()
    readers: Readers = Readers()
    oidc: Oidc = Oidc()


def load(path: Path | None) -> Config:
    """Read the settings file, or the defaults when `path` is None.

    Raises `Misconfigured` with the path of the offending key (`$.web.port`), or when the file cannot be read.
    """
    return read(path, Config, "outpost hub sites")
