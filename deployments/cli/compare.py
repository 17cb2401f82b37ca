"""`rayclassify compare`: a model on trial against the one that serves, on real traffic."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from deployments.cli.deploy import Address, AppName, find, told
from deployments.cli.evaluate import fail
from deployments.cli.exit_codes import NO
from deployments.cli.formats import Format, FormatOption, JsonOption, chosen, print_csv, print_json

if TYPE_CHECKING:
    from deployments.deploying.shadow_view import Trial

_CSV = (
    *("application", "compared", "dropped", "failed", "agreement", "low", "high"),
    *("score_difference", "seconds_per_text", "shadow_seconds_per_text"),
)
_SHOWN_CHANGES = 10


def compare(
    address: Address = None,
    app: AppName = None,
    format_: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """How often the model of `args.shadow` agrees with the one that serves, and what it costs.

    It adds up what all replicas say at the nodes' metrics endpoints, since they started.

    Example: `rayclassify compare --json`
    """
    from deployments.deploying.dashboard import Dashboard
    from deployments.deploying.live_view import metrics_pages, session_for
    from deployments.deploying.rates import merged
    from deployments.deploying.shadow_view import trials

    form = chosen(format_, as_json)
    with told():
        dashboard = Dashboard(find(address))
        found = trials(merged(metrics_pages(dashboard, session_for(dashboard))), app)
    if form is Format.json:
        print_json([one.to_json() for one in found])
    elif form is Format.csv:
        print_csv(_CSV, [one.to_json() for one in found])
    else:
        for one in found:
            _print(one)
    if not any(one.compared for one in found):
        say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
        fail(
            say,
            "nothing is compared yet: the config has no args.shadow.model, or no text has come. "
            "Endpoints change every 10 s.",
            NO,
        )


def _print(one: Trial) -> None:
    out = Console(
        highlight=False, soft_wrap=True, markup=False, width=None if sys.stdout.isatty() else 160
    )
    out.print(
        f"{one.application}: {one.compared:,} texts compared, {one.dropped:,} dropped, "
        f"{one.failed:,} failed"
    )
    if not one.compared:
        return
    out.print(f"labels agree for {one.agreement:.2%} [{one.low:.2%}, {one.high:.2%}] of them")
    out.print(
        f"scores of the label that was served differ by {one.score_difference:.3f} on average"
    )
    costs = (one.seconds_per_text, one.shadow_seconds_per_text)
    served, tried = ("unknown" if s is None else f"{s * 1e3:.2f} ms" for s in costs)
    out.print(f"the model's time for a text: {served} of the one that serves, {tried} on trial")
    if one.changes:
        table = Table("served", "on trial", "texts", "share", box=None, header_style="bold")
        for (label, other), n in list(one.changes.items())[:_SHOWN_CHANGES]:
            table.add_row(label, other, f"{n:,}", f"{n / one.compared:.2%}")
        out.print(table)
