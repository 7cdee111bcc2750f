"""For whom and for what the model speaks, in words: shown beside every probability."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import msgspec

from edge import passport
from models.bundle import Manifest
from web import here
from web.languages import gettext as _
from web.phrases import number


def bundle() -> Path:
    """The folder of the bundle in use."""
    return passport.folder(here.config())


@lru_cache(maxsize=4)
def _manifest(path: Path, _written: int) -> Manifest:
    return msgspec.toml.decode(path.read_bytes(), type=Manifest)


def sentences() -> list[str]:
    """The limits of use of the bundle at work; of a bundle that cannot be read, that it cannot."""
    path = bundle() / "manifest.toml"
    try:
        manifest = _manifest(path, path.stat().st_mtime_ns)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return [_("The model does not say for whom it was tested; do not rely on it.")]
    ages = {domain.key: domain for domain in manifest.domains}
    return [
        _("%(finding)s: tested on %(views)s films of people from %(low)s to %(high)s years.")
        % {
            "finding": _(finding.label),
            "views": ", ".join(manifest.views),
            "low": number(ages[finding.domain].age_min),
            "high": number(ages[finding.domain].age_max - 1),
        }
        for finding in manifest.findings
    ] + [
        _("It looks for nothing else: a film without these findings can still show disease, tuberculosis for example.")
    ]
