"""Card: the model card, written from the manifest and the measured figures; a blank fails the build."""

from __future__ import annotations

from typing import Any

from models.bundle import Manifest

LIMITS = """\
- It has learnt two things only: pneumonia in children of 1 to 5 years from one hospital, and lung opacity in adults from 140
  films of one hospital. Nothing else is looked for: no tuberculosis, no pneumothorax, no effusion, no nodule, no fracture.
- It says nothing between 6 and 17 years, below 1 year, or when the age is not known.
- It has never been tested on photographs of films, on lateral views, on films after surgery, or on portable devices as such.
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
        "To measure again: `python -m models.training all`.",
        "",
        "**A demonstrator, trained on few, confounded films. Not for clinical use.** It shows that the box works from film to",
        "worklist. No clinical claim is made, and none can be made from these data.",
        "",
        "## What it is",
        "",
        "EfficientNet-Lite0 with ImageNet weights, one gray channel, 224 × 224, int8 on ONNX Runtime; on its 1,280 features a",
        "logistic regression per finding, in float; Platt calibration. The class activation map is a second output.",
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
        "Only films that a person has read count; labels mined from reports are not used.",
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
    lines += ["### Shortcuts", ""]
    for name, value in measured["shortcuts"].items():
        line = f"{value['auroc']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" if isinstance(value, dict) else value
        lines.append(f"- {name.replace('_', ' ')}: {line}")
    lines += [
        "",
        "The view alone tells much of opacity from normal; the figures within a view are the ones to look at.",
        "",
        "### Gate",
        "",
    ]
    for name, value in measured["gate"].items():
        lines.append(f"- {name.replace('_', ' ')}: {value['refused']} of {value['of']} ({value['share']:.1%})")
    lines += [
        "",
        "Faults are synthesized in held-out films; `not chest` is drawn by formula. Real foreign films are few.",
        "",
        "### Quantization",
        "",
    ]
    for name, value in measured["quantization"].items():
        lines.append(
            f"- {name.replace('_', ' ')}: "
            + ", ".join(f"{key.replace('_', ' ')} {figure}" for key, figure in value.items())
        )
    lines += [
        "",
        "The heads were fitted on the int8 features, so the difference to float is not an error of the shipped model.",
        "",
    ]
    lines += ["## What it cannot do", "", LIMITS, ""]
    text = "\n".join(lines)
    if any(blank in text for blank in ("None", "nan", "TODO", "[populate]")):
        raise ValueError("the card has a blank")
    return text
