"""Tables of images with several findings: the means of each row, and for each row its findings one by one."""

from biomedclip_jax.evaluation._intervals import FEWEST, TOO_FEW
from biomedclip_jax.evaluation._thresholds import CHOSEN
from biomedclip_jax.evaluation.report._groups import Group, names_apart
from biomedclip_jax.evaluation.report._table import SURE, Published, Table, cell, ends, missing, percent, side
from biomedclip_jax.evaluation.report.results import Result

MULTI_LABEL = {"mean_auroc": "mean AUROC", "mean_average_precision": "mean average precision"}


def findings_overview(group: Group, published: Published) -> Table:
    """The means of each row over the findings that have numbers, and those of papers beside them."""
    rows = group.rows
    names = names_apart([row.who for row in rows], rows)
    findings = f"{len(rows[0].details['measured_findings'])} of {len(rows[0].settings['classes'])}"
    body = [(name, findings, *(cell(row, each) for each in MULTI_LABEL)) for name, row in zip(names, rows, strict=True)]
    papers = published("multi-label", group.dataset)
    body += [(whose, "", *(percent(metrics.get(each)) for each in MULTI_LABEL)) for whose, metrics in papers]
    parts = [SURE, "Means over the findings that some images have and some have not."]
    if any(TOO_FEW in row.details.get("no_interval", {}).values() for row in rows):
        parts.append(f"Too few to say: a finding is, or is missing, in less than {FEWEST} images (or groups).")
    if asked := dict.fromkeys(row.asked for row in rows if row.asked):
        parts.append(f"Asked with {'; '.join(asked)}.")
    note = " ".join([*parts, *missing(group)])
    return Table(f"Several findings: {group.title}", ("model", "findings", *MULTI_LABEL.values()), tuple(body), note)


def finding_tables(group: Group) -> list[Table]:
    """For each row a table of its findings."""
    names = names_apart([row.who for row in group.rows], group.rows)
    return [_findings(group, name, row) for name, row in zip(names, group.rows, strict=True)]


def _findings(group: Group, name: str, row: Result) -> Table:
    numbers = row.details["per_finding"]
    thresholds = list(dict.fromkeys(threshold for each in numbers.values() for threshold in each.get("at", {})))
    thresholds.sort(key=lambda threshold: threshold == CHOSEN)  # not every finding has it
    body = []
    for finding, each in numbers.items():
        cells = [finding, f"{each['n']:,}", f"{each['positive']:,}"]
        for metric in ("auroc", "average_precision"):
            text = percent(each.get(metric))
            if text == "-":
                text = f"- ({each.get('missing', 'not measured')})"
            elif metric in each.get("intervals", {}):
                text += ends(each["intervals"][metric])
            elif "no_interval" in each:
                text += f" ({each['no_interval']})"
            cells.append(text)
        for threshold in thresholds:
            at = each.get("at", {}).get(threshold, {})
            cells += [side(at, name) for name in ("sensitivity", "specificity")]
            if threshold == CHOSEN:
                cells.append(f"{at['threshold']:.3g}" if at else "-")
        body.append(tuple(cells))
    shown = [f"{name} at {threshold}" for threshold in thresholds for name in ("sensitivity", "specificity")]
    shown = [each.replace(f"at {CHOSEN}", "at the chosen one") for each in shown]
    shown += ["the chosen threshold"] * (CHOSEN in thresholds)
    note = f"{SURE} Images: those whose label counts for the finding."
    if thresholds:
        note += " A finding counts as there from the stated probability on, which nobody has calibrated."
    if "thresholds_chosen_on" in row.settings:
        note += (
            " The chosen threshold has the largest sum of sensitivity and specificity on "
            f"{row.settings['thresholds_chosen_on']}."
        )
    head = ("finding", "images", "with it", "AUROC", "average precision", *shown)
    return Table(f"Findings: {group.title}: {name}", head, tuple(body), note)
