"""Card: the model card, written from the manifest and the measured figures; a blank fails the build."""

from __future__ import annotations

from typing import Any

from models.bundle import Manifest

LIMITS = """\
- It has learnt two things only: pneumonia in children of 1 to 5 years from one hospital, and lung opacity in adults, judged on
  140 films of one hospital. Nothing else is looked for: no tuberculosis (no set of it was at hand), no pneumothorax, no effusion
  by itself, no nodule, no fracture. An opacity is told from a *normal* film; films that are abnormal without an opacity were
  not in the figures.
- It says nothing between 6 and 17 years, below 1 year, or when the age is not known.
- Lateral films were not at hand: whether the gate refuses them is not known. Photographs of a screen are synthesized ones.
- It has never been tested on films after surgery, or on portable devices as such.
- Its thresholds do not travel: see the share of Hannover's films that is flagged.
- The heat map shows where a score comes from, not why, and not the outline of anything.
- The radiographs it learnt from came as 256-pixel JPEG pictures; what smaller detail would have shown is lost to it."""


def card(manifest: Manifest, measured: dict[str, Any]) -> str:
    """The card as Markdown. Raises ValueError when a figure is missing."""
    findings = measured["findings"]
    lines = [
        f"# {manifest.title}",
        "",
        f"Bundle `{manifest.id}`, version {manifest.version}, made {manifest.created}.",
        "Written by `python -m models.training bundle` from measured figures; `evaluation.json` has the same for machines.",
        "To make it again: `build/model FOLDER WORK`; the same network, all else anew: with `--from models/zoo/cxr-lite0`.",
        "",
        "**A demonstrator, trained on few, confounded films. Not for clinical use.** It shows that the box works from film to",
        "worklist. No clinical claim is made, and none can be made from these data.",
        "",
        "## What it is",
        "",
        "EfficientNet-Lite0, 224 × 224, one gray channel, begun with ImageNet weights; tuned on lesions rendered into normal",
        "films, on films of three fifths of the children and on labels mined from reports, then with every rounding of eight bits",
        "(weights in seven). No patient whose film fits or judges a head was in that. On its 1,280 features a logistic regression",
        "per finding, in float; Platt calibration. The class activation map is a second output. One file for ONNX Runtime and",
        "OpenVINO, one for LiteRT, of the same numbers.",
        "",
        "| finding | code | domain | ages in years | slope | intercept |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    domains = {domain.key: domain for domain in manifest.domains}
    for finding in manifest.findings:
        domain = domains[finding.domain]
        lines.append(
            f"| {finding.label} | {finding.scheme} {finding.code} ({finding.meaning}) | {domain.key} | {domain.age_min:g} up to"
            f" {domain.age_max:g} | {finding.slope:.3f} | {finding.intercept:.3f} |"
        )
    lines += ["", "## Films it learnt from", "", "| source | films | patients | terms |", "| --- | --- | --- | --- |"]
    lines += [f"| {source.name} | {source.films} | {source.patients} | {source.terms} |" for source in manifest.sources]
    lines += [
        "",
        "Labels mined from reports taught the network and no head; only what a person has read is the truth below.",
        "",
        "## What was measured",
        "",
    ]
    lines += ["Intervals are 95 %, by bootstrap of patients.", ""]
    lines += [
        "| finding | films | AUROC | with / without | patients | Brier | calibration error |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, groups in findings.items():
        for name, figures in groups.items():
            lines.append(
                f"| {key} | {name.replace('_', ' ')} | {figures['auroc']:.3f} [{figures['low']:.3f}, {figures['high']:.3f}] |"
                f" {figures['positive']} / {figures['negative']} | {figures['patients']} | {figures['brier']:.3f} |"
                f" {figures['expected_calibration_error']:.3f} |"
            )
    lines += [
        "",
        "### Calibration, and what is wrong when the least sure are left out",
        "",
        "Films on the wrong side of one half, of those kept when 0, 10, 20 and 30 % with a probability nearest to it are left out.",
        "",
        "| finding | films | slope | intercept | wrong of all | of 90 % | of 80 % | of 70 % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, groups in findings.items():
        for name, figures in groups.items():
            wrong = " | ".join(f"{value:.3f}" for value in figures["wrong_when_so_many_are_kept"].values())
            line = " | ".join(
                "cannot be told" if figures[part] is None else f"{figures[part]:.2f}"
                for part in ("calibration_slope", "calibration_intercept")
            )
            lines.append(f"| {key} | {name.replace('_', ' ')} | {line} | {wrong} |")
    lines += [
        "",
        "### Operating points",
        "",
        "| finding | films | operating point | level | sensitivity | specificity |",
    ]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for key, groups in findings.items():
        for name, figures in groups.items():
            for point, levels in figures["operating_points"].items():
                for level, shares in levels.items():
                    told = [
                        f"{one['share']:.3f} [{one['low']:.3f}, {one['high']:.3f}] of {one['of']}"
                        for one in shares.values()
                    ]
                    lines.append(f"| {key} | {name.replace('_', ' ')} | {point} | {level} | {told[0]} | {told[1]} |")
    lines += [
        "",
        "The thresholds were chosen on the cross-validated films, so these rows are kinder than new films would be.",
        "",
    ]
    lines += [
        "### Where it says neither",
        "",
        "A film is shown as *unsure* where, by the films the bundle comes from, one with the finding and one without may both have",
        "its probability, or neither (conformal prediction within classes, 95 % of either kind not called the other, one film a",
        "patient). Its outcome stays what it is. Cross-validated: by a band of the other four fifths of the patients. A clinic's",
        "own films are other films: where it has calibrated the model, this is no longer said.",
        "",
        "| finding | from, up to | films | with it, not called absent | without it, not called present | called neither |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    of = {finding.key: finding.band for finding in manifest.findings}
    for key, groups in findings.items():
        band = of[key]
        for name, figures in groups.items():
            if "band" in figures and band is not None:
                told = [
                    f"{one['share']:.3f} [{one['low']:.3f}, {one['high']:.3f}] of {one['of']}"
                    for one in figures["band"].values()
                ]
                lines.append(
                    f"| {key} | {band.present:.3f}, {band.absent:.3f} | {name.replace('_', ' ')} | {' | '.join(told)} |"
                )
    lines += ["", "### Shortcuts", ""]
    for name, value in measured["shortcuts"].items():
        line = f"{value['auroc']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" if isinstance(value, dict) else value
        lines.append(f"- {name.replace('_', ' ')}: {line}")
    lines += [
        "",
        "The view alone tells much of opacity from normal; the figures within a view are the ones to look at. How the",
        "network learns was chosen with the adults' figures in sight, so they are a little kinder than new films would be.",
        "",
        "### Gate",
        "",
    ]
    foreign = measured["gate"]["real_foreign_pictures_refused"]["subjects"]
    for name, value in measured["gate"].items():
        shares = f"{value['share']:.1%} [{value['low']:.1%}, {value['high']:.1%}]"
        lines.append(f"- {name.replace('_', ' ')}: {value['refused']} of {value['of']} ({shares})")
    lines += [
        "",
        "Faults are synthesized in held-out films; `not chest` is drawn by formula. Real foreign pictures are few: of",
        f"{foreign} subjects (three radiographs, tomographies, an ultrasound, a scintigraphy, test patterns); the interval is by",
        "subject. Here the picture alone was judged; the header's part of the gate refuses most of them before.",
        "",
        "### Eight bits, and the runtimes",
        "",
        "On films of held-out patients. The aim: 99th percentile at most 0.03, at most 0.005 of AUROC lost, 99 % equal outcomes,",
        "maps at 0.95. Float is the same network with the same weights of seven bits, computed without rounding what it gives out.",
        "",
        "| finding: compared | films | median | 99th percentile | AUROC lost | equal outcomes | maps |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, value in measured["agreement"].items():
        lines.append(f"| {name} | " + " | ".join(str(figure) for figure in value.values()) + " |")
    lines += [""]
    lines += ["## What it cannot do", "", LIMITS, ""]
    text = "\n".join(lines)
    if any(blank in text for blank in ("None", "nan", "TODO", "[populate]")):
        raise ValueError("the card has a blank")
    return text
