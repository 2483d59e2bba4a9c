"""The part of the page that says why the result can be believed, or where it cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pliant.report.markup import Markup, joined, tag
from pliant.report.pieces import card, cards, facts, note, section, table
from pliant.report.quantities import (
    GAP,
    NOT_MEASURED,
    duration,
    is_number,
    moment,
    percent,
    significant,
)

_SPEARMAN = "Rank correlation, Spearman \N{GREEK SMALL LETTER RHO}"


def evidence(summary: Mapping[str, Any]) -> Markup:
    """The section: claims with their bounds, then how good the estimates were that the search relied on."""
    rows = [_claim(claim) for claim in summary.get("evidence") or []]
    heads = ("Claim", "Value", "Bound", "Holds?", "How it was measured")
    claims = (
        table("Claims", heads, rows, class_="claims") if rows else note("No claim was checked yet.")
    )
    quality = (
        _search(summary),
        _predictor(summary),
        _latency_model(summary),
        _test_openings(summary),
    )
    return section(
        "evidence", "The evidence", claims, cards(part for part in quality if part is not None)
    )


def _claim(claim: Mapping[str, Any]) -> tuple[object, ...]:
    bound = "—" if claim.get("bound") is None else significant(claim["bound"])
    return (
        claim.get("claim"),
        significant(claim.get("value")),
        bound,
        _verdict(claim),
        claim.get("how"),
    )


def _verdict(claim: Mapping[str, Any]) -> Markup:
    holds = claim.get("holds")
    if holds is None:
        stated = (
            claim.get("value") is not None and claim.get("bound") is None
        )  # a fact, without anything that it must hold
        return tag("span", "—" if stated else NOT_MEASURED, class_="open")
    return (
        tag("span", "✓ holds", class_="holds")
        if holds
        else tag("span", "✗ does not hold", class_="fails")
    )


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
    if not is_number(ours) or not is_number(theirs) or theirs <= 0:
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
    return card(
        "Accuracy predictor",
        facts(rows),
        note("By cross-validation: each network was predicted without having been seen."),
    )


def _points(share: object) -> str:
    return f"{significant(100 * share, 2)}{GAP}points" if is_number(share) else NOT_MEASURED


def _latency_model(summary: Mapping[str, Any]) -> Markup | None:
    model = summary.get("latency_model")
    if not model:
        return None
    error = model.get("mape_percent")
    rows = [
        ("Model", model.get("kind")),
        (
            "Mean absolute error",
            f"{significant(error)}{GAP}%" if is_number(error) else NOT_MEASURED,
        ),
        (_SPEARMAN, significant(model.get("spearman"))),
        ("Unseen networks", significant(model.get("networks"))),
    ]
    return card(
        "Latency model",
        facts(rows),
        note("On whole networks that were measured and not used to fit it."),
    )


def _test_openings(summary: Mapping[str, Any]) -> Markup | None:
    openings = summary.get("test_openings")
    if openings is None:
        return None
    times = {0: "not opened yet", 1: "opened once"}.get(
        len(openings), f"opened {len(openings)} times"
    )
    says = tag("p", f"The test images were {times}.")
    rows = tag("ul", *_openings(openings), class_="plain") if openings else None
    return card(
        "Use of the test images",
        says,
        rows,
        note("Every opening is logged. The more often, the less a test accuracy means."),
    )


def _openings(openings: list[Mapping[str, Any]]) -> Iterator[Markup]:
    for opening in openings:
        yield tag(
            "li",
            joined(
                opening.get("purpose") or "no purpose given",
                ", ",
                tag("time", moment(opening.get("created"))),
            ),
        )
