"""The page of an evaluation: one HTML file that needs nothing else, its plots drawn as SVG from the very figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

Figures = dict[str, Any]
Points = Sequence[tuple[float, float]]

SIDE, MARGIN = 240, 40
MOST_POINTS = 400
"""A curve of more says nothing more at this size."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #111; background: #fff }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { border-bottom: 1px solid #bbb; padding: .25rem .75rem .25rem 0; text-align: left; white-space: nowrap }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top; max-width: 20rem }
figcaption { font-size: .875rem }
svg text { font: 12px system-ui, sans-serif; fill: #111 }
"""


def page(told: Figures) -> str:
    """The page of what `evaluation.figures` gives."""
    lines = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>Evaluation of {escape(told['bundle'])}</title><style>{STYLE}</style></head><body>",
        f"<h1>Evaluation of {escape(told['bundle'])}</h1>",
        f"<p>{told['films']} films of {told['patients']} patients. Intervals are 95 %, from {told['draws']} samples by",
        f"patient (seed {told['seed']}). Sensitivity and specificity are of the films that were assessed.</p>",
        *_refusals(told),
    ]
    for finding in told["findings"].values():
        lines += _finding(finding)
    return "\n".join([*lines, "</body></html>", ""])


def _refusals(told: Figures) -> Iterator[str]:
    if told["could_not_assess"]:
        yield "<h2>Could not be assessed</h2>"
        yield _table(
            ("reason", "films"),
            [(why.replace("_", " "), str(number)) for why, number in told["could_not_assess"].items()],
        )
    if told["unreadable"]:
        yield "<p>These files could not be read:</p>"
        yield _table(
            ("line", "file", "why"), [(str(one["line"]), one["file"], one["why"]) for one in told["unreadable"]]
        )


def _finding(finding: Figures) -> Iterator[str]:
    yield f"<h2>{escape(finding['label'])}</h2>"
    if "roc" in finding:
        calibration, risk = finding["calibration"], finding["selective_risk"]
        points = list(zip(finding["roc"]["false_positive"], finding["roc"]["true_positive"], strict=True))
        yield _plot(
            points, "1 − specificity", "sensitivity",
            "ROC curve. The diagonal is chance.", diagonal=True,
        )  # fmt: skip
        yield _plot(
            [(said, was) for said, was, _ in calibration["reliability"]], "probability said", "share with the finding",
            "Reliability, a tenth of the films in each point. On the diagonal a probability is what it says.",
            diagonal=True, dots=True,
        )  # fmt: skip
        yield _plot(
            list(zip(risk["kept"], risk["risk"], strict=True)), "share of films kept", "share of them wrong",
            f"Selective risk at {risk['from']:g}, when the films nearest to it are left to people alone.",
        )  # fmt: skip
        yield _table(
            ("calibration", "value"),
            [
                (name, figure(calibration[key]))
                for name, key in (
                    ("Brier score", "brier"),
                    ("expected calibration error", "expected_calibration_error"),
                    ("slope (1 is right)", "slope"),
                    ("intercept (0 is right)", "intercept"),
                )
            ],
        )
    rows = []
    for name, group in finding["groups"].items():
        counts = f"{group['with']} / {group['without']}"
        rows.append((name, str(group["films"]), figure(group["could_not_assess"]), counts, figure(group["auroc"])))
    yield _table(("films", "number", "could not assess", "with / without", "AUROC"), rows)
    rows = []
    for point in next(iter(finding["groups"].values()))["operating_points"]:
        for name, group in finding["groups"].items():
            for level, one in group["operating_points"][point].items():
                told = figure(one["sensitivity"]), figure(one["specificity"])
                rows.append((point, f"{level}, from {one['from']:g}", name, *told))
    yield _table(("operating point", "level", "films", "sensitivity", "specificity"), rows)


def figure(one: Figures) -> str:
    """A figure with its interval, or that there is none."""
    if one["value"] is None:
        return "–"
    if one["low"] is None:
        return f"{one['value']:.3f}"
    return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    return f"<table>{row(head, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"


def _plot(points: Points, x: str, y: str, caption: str, diagonal: bool = False, dots: bool = False) -> str:
    """A curve in the unit square."""
    if len(points) > MOST_POINTS:
        step = (len(points) - 1) / (MOST_POINTS - 1)
        points = [points[round(step * number)] for number in range(MOST_POINTS)]
    placed = [(MARGIN + SIDE * across, MARGIN / 2 + SIDE * (1 - up)) for across, up in points]
    left, top, right, bottom = MARGIN, MARGIN // 2, MARGIN + SIDE, MARGIN // 2 + SIDE
    parts = [f'<rect x="{left}" y="{top}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#999"/>']
    if diagonal:
        parts.append(f'<line x1="{left}" y1="{bottom}" x2="{right}" y2="{top}" stroke="#bbb" stroke-dasharray="4"/>')
    way = " ".join(f"{across:.1f},{up:.1f}" for across, up in placed)
    parts.append(f'<polyline points="{way}" fill="none" stroke="#05a" stroke-width="2"/>')
    if dots:
        parts += [f'<circle cx="{across:.1f}" cy="{up:.1f}" r="4" fill="#05a"/>' for across, up in placed]
    for place, anchor in ((0.0, "start"), (1.0, "end")):
        parts.append(f'<text x="{left + SIDE * place}" y="{bottom + 14}" text-anchor="{anchor}">{place:g}</text>')
        parts.append(f'<text x="{left - 6}" y="{bottom - SIDE * place + 4}" text-anchor="end">{place:g}</text>')
    middle = top + SIDE / 2
    parts.append(f'<text x="{left + SIDE / 2}" y="{bottom + 28}" text-anchor="middle">{escape(x)}</text>')
    parts.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(y)}</text>'
    )
    size = f'width="{right + 10}" height="{bottom + MARGIN}"'
    drawn = f'<svg {size} role="img" aria-label="{escape(caption)}">{"".join(parts)}</svg>'
    return f"<figure>{drawn}<figcaption>{escape(caption)}</figcaption></figure>"
