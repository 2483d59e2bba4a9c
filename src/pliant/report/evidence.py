"""The part of the page that says why the result can be believed, or where it cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scipy.stats import kendalltau

from pliant.report.candidates import candidates
from pliant.report.markup import Markup, joined, tag
from pliant.report.pieces import card, cards, facts, note, section, table
from pliant.report.quantities import NOT_MEASURED, duration, is_number, moment, percent, significant

_SPEARMAN = "Rank correlation, Spearman \N{GREEK SMALL LETTER RHO}"
_FEWEST_RANKED = 5
"""A rank correlation of fewer networks says nothing."""


def evidence(summary: Mapping[str, Any]) -> Markup:
    """The section: claims with their bounds, then how good the estimates were that the search relied on."""
    rows = [_claim(claim) for claim in summary.get("evidence") or []]
    heads = ("Claim", "Value", "Bound", "Holds?", "How it was measured")
    claims = table("Claims", heads, rows, numbers=(1, 2), class_="claims") if rows else note("No claim was checked yet.")
    quality = (_search(summary), _predictor(summary), _latency_model(summary), _parameter_bar(summary), _test_openings(summary))
    return section("evidence", "The evidence", claims, cards(part for part in quality if part is not None))


def _claim(claim: Mapping[str, Any]) -> tuple[object, ...]:
    bound = "—" if claim.get("bound") is None else significant(claim["bound"])
    return claim.get("claim"), significant(claim.get("value")), bound, _verdict(claim), claim.get("how")


def _verdict(claim: Mapping[str, Any]) -> Markup:
    holds = claim.get("holds")
    if holds is None:
        return tag("span", NOT_MEASURED, class_="open")
    return tag("span", "✓ holds", class_="holds") if holds else tag("span", "✗ does not hold", class_="fails")


def _search(summary: Mapping[str, Any]) -> Markup | None:
    search = summary.get("search")
    if not search:
        return None
    ours, theirs = search.get("hypervolume"), search.get("random_hypervolume")
    rows = [
        ("Hypervolume, search", significant(ours)),
        ("Hypervolume, random search", significant(theirs)),
        ("Networks evaluated, search", significant(search.get("estimates"))),
        ("Networks evaluated, random search", significant(search.get("random_estimates"))),
        ("Time", duration(search.get("seconds"))),
    ]
    return card("Search against random search", facts(rows), note(_compared(ours, theirs)))


def _compared(ours: object, theirs: object) -> str:
    if not isinstance(ours, int | float) or not isinstance(theirs, int | float) or theirs <= 0:
        return "The two were not compared."
    gain = ours / theirs - 1
    if abs(gain) < 0.0005:
        return "Both cover the same area: random search was as good."
    return f"The search covers {percent(abs(gain), 1)} {'more' if gain > 0 else 'less'} area than random search."


def _predictor(summary: Mapping[str, Any]) -> Markup | None:
    predictor = summary.get("predictor")
    if not predictor:
        return None
    rows = [
        ("Rank correlation, Kendall τ", significant(predictor.get("kendall_tau"))),
        (_SPEARMAN, significant(predictor.get("spearman"))),
        ("Mean absolute error", _points(predictor.get("mean_absolute_error"))),
        ("Networks it was fitted on", significant(predictor.get("rows"))),
    ]
    return card("Accuracy predictor", facts(rows), note("By cross-validation: each network was predicted without having been seen."))


def _points(share: object) -> str:
    return f"{significant(100 * share, 2)} points" if isinstance(share, int | float) else NOT_MEASURED


def _latency_model(summary: Mapping[str, Any]) -> Markup | None:
    model = summary.get("latency_model")
    if not model:
        return None
    error = model.get("mape_percent")
    rows = [
        ("Model", model.get("kind")),
        ("Mean absolute error", NOT_MEASURED if error is None else f"{significant(error)} %"),
        (_SPEARMAN, significant(model.get("spearman"))),
        ("Unseen networks", significant(model.get("networks"))),
    ]
    return card("Latency model", facts(rows), note("On whole networks that were measured and not used to fit it."))


def _parameter_bar(summary: Mapping[str, Any]) -> Markup | None:
    """How well estimates rank the evaluated networks, beside how well their mere size does."""
    known = [
        (network.facts["top1_validation"], network.facts["top1_estimate"], network.facts["parameters"])
        for network in candidates(summary)
        if all(is_number(network.facts.get(key)) for key in ("top1_validation", "top1_estimate", "parameters"))
    ]
    if len(known) < _FEWEST_RANKED:
        return None
    measured, estimated, parameters = zip(*known, strict=True)
    rows = [
        ("Kendall τ of the estimate", significant(_tau(estimated, measured), 2)),
        ("Kendall τ of the parameter count", significant(_tau(parameters, measured), 2)),
        ("Networks", significant(len(known))),
    ]
    says = "Rank correlation with the validation accuracy, over the networks of both fronts."
    says += " An estimate that ranks no better than size is worth nothing."
    return card("The bar to beat: parameter count", facts(rows), note(says))


def _tau(one: tuple[float, ...], other: tuple[float, ...]) -> float | None:
    """Kendall's rank correlation; None where all of one side are equal."""
    if len(set(one)) == 1 or len(set(other)) == 1:
        return None
    return float(kendalltau(one, other).statistic)


def _test_openings(summary: Mapping[str, Any]) -> Markup | None:
    openings = summary.get("test_openings")
    if openings is None:
        return None
    times = {0: "not opened yet", 1: "opened once"}.get(len(openings), f"opened {len(openings)} times")
    says = tag("p", f"The test images were {times}.")
    rows = tag("ul", *_openings(openings), class_="plain") if openings else None
    return card("Use of the test images", says, rows, note("Every opening is logged. The more often, the less a test accuracy means."))


def _openings(openings: list[Mapping[str, Any]]) -> Iterator[Markup]:
    for opening in openings:
        yield tag("li", joined(opening.get("purpose") or "no purpose given", ", ", tag("time", moment(opening.get("created")))))
