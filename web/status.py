"""The box about itself: what the model is, and whether the box works."""

from __future__ import annotations

import re
from pathlib import Path

import flask
from flask import Blueprint, render_template

from edge.state import queue
from web import here

pages = Blueprint("status", __name__)


@pages.get("/model")
def model() -> str:
    """What the model is and is not: the card of the bundle in use."""
    card = _bundle() / "card.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else "This model came without a card."
    return render_template("model.html", blocks=re.split(r"\n\s*\n", text.strip()))


@pages.get("/health")
def health() -> flask.typing.ResponseReturnValue:
    """Whether the pages reach the box's state, for the box to watch itself."""
    return {"status": "ok", "to_assess": queue.open_jobs(here.store(), "assess")}


def _bundle() -> Path:
    if here.config().worker.bundle:
        return Path(here.config().worker.bundle)
    from models.bundle import SHIPPED

    return SHIPPED
