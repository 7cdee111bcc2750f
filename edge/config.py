"""The box's settings: one strict TOML file, every key with its help beside it.

Clinical operating points are not settings: they belong to the model bundle, and a site chooses among them by acceptance.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from edge.errors import Misconfigured

Port = Annotated[int, Meta(ge=0, le=65535)]


class Intake(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where films come in."""

    host: Annotated[str, Meta(description="Address to listen on; 0.0.0.0 lets the X-ray unit reach the box")] = (
        "127.0.0.1"
    )
    port: Annotated[Port, Meta(description="DICOM port; 0 takes a free one")] = 11112
    ae_title: Annotated[str, Meta(min_length=1, max_length=16, description="The box's DICOM AE title")] = "OUTPOST"
    calling_ae_titles: Annotated[
        tuple[str, ...], Meta(description="AE titles that may send; empty accepts every sender")
    ] = ()
    watch: Annotated[
        tuple[str, ...], Meta(description="Folders (a USB stick's mount) whose DICOM files are taken in")
    ] = ()
    disk_floor_mib: Annotated[
        int,
        Meta(ge=0, description="Free space in MiB below which films are refused with A700, so the sender keeps them"),
    ] = 512


class Worker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How films are assessed."""

    threads: Annotated[int, Meta(ge=1, le=64, description="Processor threads for the model")] = 1
    lease_seconds: Annotated[
        int, Meta(ge=1, description="A film that takes longer is given up and tried again, three times in all")
    ] = 60
    memory_mib: Annotated[
        int, Meta(ge=0, description="Address space in MiB beyond which the worker is stopped; 0 sets no limit")
    ] = 2048
    bundle: Annotated[str, Meta(description="Folder of the model bundle; empty takes the shipped one")] = ""


class Web(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pages clinicians look at."""

    host: Annotated[str, Meta(description="Address to listen on")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="Port of the pages; 0 takes a free one")] = 8080


class Worklist(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the worklist is ordered."""

    wait_cap_minutes: Annotated[
        int,
        Meta(ge=1, description="After this wait a film goes ahead of every film that came later, whatever the AI says"),
    ] = 240


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of one box; every key has a safe default."""

    state: Annotated[str, Meta(min_length=1, description="Folder of the box's database and films")] = "/var/lib/outpost"
    intake: Intake = Intake()
    worker: Worker = Worker()
    web: Web = Web()
    worklist: Worklist = Worklist()


def load(path: Path | None) -> Config:
    """Read the settings file, or the defaults when `path` is None.

    Raises `Misconfigured` with the path of the offending key (`$.intake.port`), or when the file cannot be read.
    """
    if path is None:
        return Config()
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Config)
    except OSError as error:
        raise Misconfigured(
            f"{path}: {error.strerror}. Give the settings file with --config, or leave it out."
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path}: {error}. Correct that key; `outpost check` tries again.") from None


def save(config: Config, path: Path) -> None:
    """Write the settings as TOML, so that another process of the box reads the same ones."""
    lines: list[str] = []
    values = msgspec.to_builtins(config)
    for key, value in values.items():
        if not isinstance(value, dict):
            lines.append(f"{key} = {_toml(value)}")
    for key, value in values.items():
        if isinstance(value, dict):
            lines += [f"[{key}]", *(f"{inner} = {_toml(setting)}" for inner, setting in value.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _toml(value: object) -> str:
    return msgspec.json.encode(value).decode()


def reference() -> str:
    """The reference page of the settings as Markdown, generated from the types above."""

    def rows(struct: type[msgspec.Struct], prefix: str) -> Iterator[str]:
        described = msgspec.inspect.type_info(struct)
        assert isinstance(described, msgspec.inspect.StructType)
        for field in described.fields:
            name, kind = f"{prefix}{field.name}", field.type
            if isinstance(kind, msgspec.inspect.StructType):
                yield from rows(kind.cls, f"{name}.")
            elif isinstance(kind, msgspec.inspect.Metadata):
                text = (kind.extra_json_schema or {}).get("description", "")
                yield f"| `{name}` | `{_toml(field.default)}` | {text} |"

    head = ["# Settings", "", "Generated from `edge/config.py`; a test keeps the two equal.", ""]
    return "\n".join([*head, "| key | default | what it does |", "| --- | --- | --- |", *rows(Config, "")]) + "\n"
