"""Each alert over what the daemon really exposes: it fires where it should, stays silent where all
is well, and is explained.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from order_monitor.core.order import SkipReason
from tests.support import stages
from tests.support.alerts import ALERTS, DEPLOY, RULES, Posting, on_fire
from tests.support.clocks import ManualClock
from tests.support.stages import Stage

pytestmark = pytest.mark.outside


CAUSES = (
    "OrderMonitorDatabaseDown",
    "OrderMonitorNotUnderstood",
    "OrderMonitorAccountShut",
    "OrderMonitorWritesHeldUp",
    "OrderMonitorDuplicatePin",
    "OrderMonitorOrdersStuck",
    "OrderMonitorEndsHeld",
)
FOLLOWS = {
    "OrderMonitorWritesHeldUp",
    "OrderMonitorNotReady",
    "OrderMonitorNoSuccess",
    "OrderMonitorFallingBehind",
    "OrderMonitorReviewsWaiting",
}
"""What is left to the alert that names the cause."""

UNSEEN = {
    *("OrderMonitorAccountPausedLong", "OrderMonitorEndsHeld", "OrderMonitorReviewsWaiting"),
    "OrderMonitorOrdersLate",
}
"""Alerts over what no stage below has: their cases are among CASES."""

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus"
)


async def quiet() -> Stage:
    stage = await stages.quiet(ManualClock())
    posting: Any = Posting()
    stage.view.sender = posting
    return stage


async def well() -> Stage:
    stage = await stages.busy(ManualClock())
    stage.engine.queue.take("default")
    for entry in list(stage.engine.queue):
        stage.engine.queue.schedule(entry, stage.clock.time() + 30)
    return stage


def series(stage: Stage, *, lost: int = 0) -> list[dict[str, str]]:
    """Turn a scrape into what promtool replays for an hour: counters go on at their rate, gauges
    stay.
    """
    found = []
    for family in text_string_to_metric_families(stage.metrics.text().decode()):
        for sample in family.samples:
            labels = {**sample.labels, "job": "order-monitor", "instance": "a"}
            name = (
                f"{sample.name}{{{', '.join(f'{k}={json.dumps(v)}' for k, v in labels.items())}}}"
            )
            grows = sample.name.endswith(("_total", "_bucket", "_count", "_sum"))
            is_time = sample.name.endswith("timestamp_seconds")
            value = lost if sample.name.endswith("dropped_total") else sample.value
            value = 0 if is_time else value
            step = value if grows else 60 if is_time and not lost else 0
            found.append({"series": name, "values": f"{value if not grows else 0:g}+{step:g}x80"})
    return found


def fired(tmp_path: Path, given: list[dict[str, str]]) -> set[str]:
    """Return the alerts that fire after an hour of these series: promtool, told to expect none,
    says what it got instead.
    """
    firing = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": "60m",
        "exp_samples": [],
    }
    told = complaints(
        tmp_path, [{"interval": "1m", "input_series": given, "promql_expr_test": [firing]}]
    )
    assert not told or "got:" in told, told
    return set(re.findall(r'alertname="(\w+)"', told.rpartition("got:")[2]))


def complaints(
    tmp_path: Path, tests: list[dict[str, Any]], rules: Path = DEPLOY / "alerts.yml"
) -> str:
    """Run promtool; return what it complains of."""
    path = tmp_path / "cases.yml"
    path.write_text(
        yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests})
    )
    done = subprocess.run(
        ["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


UP = {"series": 'up{job="order-monitor", instance="a"}', "values": "1+0x80"}


@promtool
def test_the_rules_are_well_formed() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", DEPLOY / "alerts.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@promtool
@pytest.mark.parametrize("make", [quiet, well])
async def test_where_all_is_well_nothing_fires(tmp_path: Path, make: Callable[[], Any]) -> None:
    assert fired(tmp_path, [UP, *series(await make())]) == set()


@pytest.mark.long
@promtool
async def test_where_everything_is_wrong_everything_fires(tmp_path: Path) -> None:
    stage = await on_fire()
    stage.engine.state.skipped.update({SkipReason.NO_ROUTING: 2})
    assert fired(tmp_path, series(stage, lost=5)) == set(ALERTS) - FOLLOWS - UNSEEN


@promtool
@pytest.mark.parametrize("up", [[], [{**UP, "values": "0+0x80"}]])
async def test_a_daemon_that_is_gone_is_one_alert(tmp_path: Path, up: list[dict[str, str]]) -> None:
    assert fired(tmp_path, up) == {"OrderMonitorDown"}


@dataclass(frozen=True)
class Case:
    """Series by name and labels, as promtool writes values a minute apart.

    ``count`` alerts fire at ``at``.
    """

    given: dict[str, str]
    count: int = 0
    at: str = "30m"


ON = "1x2000"
OFF = "0x2000"
ACCOUNT = '{account="a"}'
OTHER = '{account="b"}'
SHUT = {f"account_open{ACCOUNT}": OFF, f"account_orders{ACCOUNT}": "4x2000"}
ASKED = {f"account_open{ACCOUNT}": ON, f"account_orders{ACCOUNT}": "4x2000"}
BLIND = {f"account_understood{ACCOUNT}": OFF, f"account_orders{ACCOUNT}": "4x2000"}
PAUSED = {f"account_paused{ACCOUNT}": ON}
AWAY = {"database_up": OFF}
SAME_PIN = 'orders_stuck_by_reason{reason="pin_duplicate"}'
LONG_AGO = {"last_success_timestamp_seconds": "60x2000"}
DETECTED = "detection_seconds_bucket"

CASES = {
    "OrderMonitorDown": [
        Case({}, 1, "6m"),
        Case({"up": OFF}, 1, "6m"),
        Case({}, 0, "4m"),
        Case({"up": OFF}, 0, "4m"),
        Case({"up": ON}),
    ],
    "OrderMonitorDatabaseDown": [
        Case(AWAY, 1, "6m"),
        Case(AWAY, 0, "4m"),
        Case({"database_up": ON}),
    ],
    "OrderMonitorNotUnderstood": [
        Case(BLIND, 1, "4m"),
        Case(BLIND, 0, "2m"),
        Case({**BLIND, **PAUSED}),
        Case({**BLIND, f"account_orders{ACCOUNT}": OFF}),
        Case({**BLIND, f"account_understood{ACCOUNT}": ON}),
    ],
    "OrderMonitorAccountShut": [
        Case(SHUT, 1, "6m"),
        Case({**SHUT, **BLIND}),
        Case({**SHUT, **BLIND, f"account_open{OTHER}": OFF, f"account_orders{OTHER}": "9x2000"}, 1),
        Case(SHUT, 0, "4m"),
        Case({**SHUT, f"account_open{OTHER}": OFF, f"account_orders{OTHER}": "9x2000"}, 2),
        Case({**SHUT, f"account_paused{ACCOUNT}": OFF}, 1),
        Case({**SHUT, f"account_paused{OTHER}": ON}, 1),
        Case({**SHUT, **PAUSED}),
        Case({**SHUT, f"account_orders{ACCOUNT}": OFF}),
        Case(ASKED),
    ],
    "OrderMonitorAccountPausedLong": [
        Case(PAUSED, 1, "1441m"),
        Case(PAUSED, 0, "1430m"),
        Case({f"account_paused{ACCOUNT}": "1x700 _x5 1x1000"}, 1, "1441m"),
        Case({f"account_paused{ACCOUNT}": "1x700 0x30 1x1000"}, 0, "1441m"),
        Case({f"account_paused{ACCOUNT}": OFF}, 0, "1441m"),
    ],
    "OrderMonitorWritesHeldUp": [
        Case({"writes_oldest_seconds": "121x100"}, 1, "2m"),
        Case({"writes_oldest_seconds": "120x100"}),
        Case({"writes_oldest_seconds": "0+30x3 0x100"}),
        Case({"writes_oldest_seconds": "600x100", **AWAY}),
    ],
    "OrderMonitorNotReady": [
        Case({"ready": OFF, "database_up": ON}, 1, "11m"),
        Case({"ready": OFF, "database_up": ON}, 0, "9m"),
        Case({"ready": OFF, **PAUSED}, 1),
        Case({"ready": OFF, **AWAY}),
        Case({"ready": OFF, **SHUT}),
        Case({"ready": OFF, **BLIND}),
        Case({"ready": ON}),
    ],
    "OrderMonitorNoSuccess": [
        Case({**ASKED, **LONG_AGO}, 1, "8m"),
        Case({**ASKED, **LONG_AGO}, 0, "6m"),
        Case({**ASKED, "last_success_timestamp_seconds": OFF}, 1, "7m"),
        Case({**ASKED, "last_success_timestamp_seconds": "_x20 0x100"}, 0, "25m"),
        Case({**ASKED, "last_success_timestamp_seconds": "_x20 0x100"}, 1, "28m"),
        Case(
            {**ASKED, **LONG_AGO, f"account_orders{OTHER}": "2x2000", f"account_paused{OTHER}": ON},
            1,
        ),
        Case({**ASKED, **LONG_AGO, **PAUSED}),
        Case({**ASKED, **LONG_AGO, **AWAY}),
        Case({**SHUT, **LONG_AGO}),
        Case({**ASKED, **LONG_AGO, f"account_orders{ACCOUNT}": OFF}),
        Case({**ASKED, "last_success_timestamp_seconds": "0+60x2000"}),
    ],
    "OrderMonitorFallingBehind": [
        Case({**ASKED, "oldest_due_seconds": "601x100"}, 1, "11m"),
        Case({**ASKED, "oldest_due_seconds": "601x100"}, 0, "9m"),
        Case({**ASKED, "oldest_due_seconds": "600x100"}),
        Case({**ASKED, "oldest_due_seconds": "601x100", **PAUSED}),
        Case({**ASKED, "oldest_due_seconds": "601x100", **AWAY}),
        Case({**SHUT, "oldest_due_seconds": "601x100"}),
        Case(
            {
                "oldest_due_seconds": "601x100",
                "database_up": "0 0 0 0 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
            },
            1,
            "20m",
        ),
    ],
    "OrderMonitorOrdersLate": [
        Case({"oldest_open_seconds": "1900+60x100", "orders_overdue": OFF}, 1, "6m"),
        Case({"oldest_open_seconds": "1900+60x100", "orders_overdue": OFF}, 0, "4m"),
        Case({"oldest_open_seconds": "1700x100", "orders_overdue": OFF}, 0, "60m"),
        Case({"oldest_open_seconds": "90000x100", "orders_overdue": "1x100"}, 0, "60m"),
    ],
    "OrderMonitorOrdersOverdue": [
        Case({"orders_overdue": "3x100"}, 1, "31m"),
        Case({"orders_overdue": "3x100"}, 0, "29m"),
        Case({"orders_overdue": OFF}, 0, "60m"),
    ],
    "OrderMonitorOrdersStuck": [
        Case({"orders_stuck": "7x100"}, 1, "6m"),
        Case({"orders_stuck": "7x100"}, 0, "4m"),
        Case({"orders_stuck": OFF}),
        Case({"orders_stuck": "7x100", SAME_PIN: "6x100"}, 1),
        Case({"orders_stuck": "7x100", SAME_PIN: "7x100"}),
    ],
    "OrderMonitorDuplicatePin": [
        Case({SAME_PIN: "2x100"}, 1, "2m"),
        Case({SAME_PIN: OFF}),
        Case({'orders_stuck_by_reason{reason="pin_differs"}': "2x100"}),
    ],
    "OrderMonitorEndsHeld": [
        Case({"orders_held": "500x100"}, 1, "6m"),
        Case({"orders_held": "500x100"}, 0, "4m"),
        Case({"orders_held": OFF}, 0, "60m"),
    ],
    "OrderMonitorReviewsWaiting": [
        Case({"reviews": "2x100", "orders_held": "2x100"}, 0, "90m"),
        Case({"reviews": "2x100"}, 1, "61m"),
        Case({"reviews": "2x100"}, 0, "59m"),
        Case({"reviews": OFF}, 0, "90m"),
        Case({"reviews": "2x100", "orders_stuck": "2x100"}, 0, "90m"),
    ],
    "OrderMonitorNeedsALook": [
        Case({'attention{kind="beside"}': ON, 'attention{kind="differ"}': ON}, 2, "31m"),
        Case({'attention{kind="beside"}': ON}, 0, "29m"),
        Case({'attention{kind="beside"}': OFF, 'attention{kind="stuck"}': ON}, 0, "60m"),
    ],
    "OrderMonitorNoReference": [
        Case({'orders_skipped{reason="no_reference"}': "5x100"}, 1, "31m"),
        Case({'orders_skipped{reason="no_reference"}': "5x100"}, 0, "29m"),
        Case({'orders_skipped{reason="no_routing"}': "5x100"}, 0, "60m"),
        Case({'orders_skipped{reason="no_reference"}': OFF}, 0, "60m"),
    ],
    "OrderMonitorOrdersSkipped": [
        Case(
            {
                'orders_skipped{reason="no_routing"}': "5x100",
                'orders_skipped{reason="bad_address"}': "1x100",
            },
            2,
            "31m",
        ),
        Case({'orders_skipped{reason="no_routing"}': "5x100"}, 0, "29m"),
        Case({'orders_skipped{reason="no_routing"}': OFF}, 0, "60m"),
        *(
            Case({f'orders_skipped{{reason="{reason}"}}': "5x100"}, 0, "60m")
            for reason in ("no_reference", "disabled", "other_provider")
        ),
    ],
    "OrderMonitorEventsNotConsumed": [
        Case({"events_oldest_waiting_seconds": "901x100"}, 1, "6m"),
        Case({"events_oldest_waiting_seconds": "901x100"}, 0, "4m"),
        Case({"events_oldest_waiting_seconds": "900x100"}),
    ],
    "OrderMonitorWebhookBehind": [
        Case({"webhook_waiting": "101x100"}, 1, "16m"),
        Case({"webhook_waiting": "101x100"}, 0, "14m"),
        Case({"webhook_waiting": "100x100"}),
    ],
    "OrderMonitorWebhookDead": [
        Case({"webhook_dead": ON}, 1, "2m"),
        Case({"webhook_dead": ON}, 0, "0m"),
        Case({"webhook_dead": OFF}),
    ],
    "OrderMonitorSlowDetection": [
        Case(
            {
                f'{DETECTED}{{le="{le}"}}': f"0+{n}x200"
                for le, n in (("300", 90), ("600", 100), ("+Inf", 100))
            },
            1,
        ),
        Case(
            {
                f'{DETECTED}{{le="{le}"}}': f"0+{n}x200"
                for le, n in (("300", 90), ("600", 100), ("+Inf", 100))
            },
            0,
            "14m",
        ),
        Case(
            {
                f'{DETECTED}{{le="{le}"}}': f"0+{n}x200"
                for le, n in (("300", 96), ("600", 100), ("+Inf", 100))
            }
        ),
        Case({f'{DETECTED}{{le="{le}"}}': "50x200" for le in ("300", "600", "+Inf")}),
    ],
    "OrderMonitorLogDropped": [
        Case({"log_lines_dropped_total": "0+3x200"}, 1),
        Case({"log_lines_dropped_total": "0+3x200"}, 0, "1m"),
        Case({"log_lines_dropped_total": "9x200"}),
    ],
}


def named(series: str) -> str:
    """Complete a case's series: its prefix, job and instance."""
    name, _, labels = series.rstrip("}").partition("{")
    name = name if name == "up" else f"order_monitor_{name}"
    own = 'job="order-monitor", instance="x"'
    return f"{name}{{{labels}, {own}}}" if labels else f"{name}{{{own}}}"


def test_every_alert_has_cases_where_it_fires_and_where_not() -> None:
    assert set(CASES) == set(ALERTS)
    for name, cases in CASES.items():
        assert {case.count > 0 for case in cases} == {True, False}, name


def needed(tmp_path: Path, name: str) -> Path:
    """The file of rules, or the one rule by itself where it looks at no other: a day of minutes
    through all takes ten seconds.
    """
    if "ALERTS{" in ALERTS[name]["expr"]:
        return DEPLOY / "alerts.yml"
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "one", "rules": [ALERTS[name]]}]}))
    return path


def replay(name: str, case: Case) -> dict[str, Any]:
    """What promtool is to replay, and how many alerts of this name must fire at the end of it."""
    samples = [{"labels": "{}", "value": case.count}] if case.count else []
    return {
        "name": f"{name} {case}",
        "interval": "1m",
        "input_series": [
            {"series": named(key), "values": values} for key, values in case.given.items()
        ],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}})',
                "eval_time": case.at,
                "exp_samples": samples,
            }
        ],
    }


@pytest.mark.long
@promtool
@pytest.mark.parametrize("name", CASES)
def test_it_fires_where_it_should_and_is_silent_where_it_should_not(
    tmp_path: Path, name: str
) -> None:
    assert (
        complaints(tmp_path, [replay(name, case) for case in CASES[name]], needed(tmp_path, name))
        == ""
    )


@promtool
@pytest.mark.parametrize(
    ("given", "alert"),
    [
        ({**ASKED, **AWAY}, "OrderMonitorDatabaseDown"),
        (SHUT, "OrderMonitorAccountShut"),
        ({**SHUT, **BLIND}, "OrderMonitorNotUnderstood"),
        (ASKED, "OrderMonitorNoSuccess"),
    ],
)
@pytest.mark.parametrize("at", ["10m", "30m", "60m"])
def test_an_outage_is_one_alert(tmp_path: Path, given: dict[str, str], alert: str, at: str) -> None:
    """All that follows from it is seen as well: nothing understood, orders late, not ready."""
    follows = {
        "ready": ON if alert == "OrderMonitorNoSuccess" else OFF,
        "oldest_due_seconds": "0+60x2000",
        **LONG_AGO,
    }
    if alert == "OrderMonitorNoSuccess":
        follows["oldest_due_seconds"] = "30x2000"
    test = replay(alert, Case({"up": ON, **follows, **given}, 1, at))
    test["promql_expr_test"][0]["expr"] = 'count(ALERTS{alertstate="firing"})'
    test["promql_expr_test"].append({**replay(alert, Case({}, 1, at))["promql_expr_test"][0]})
    assert complaints(tmp_path, [test]) == ""


def test_a_cause_stands_above_what_looks_for_it() -> None:
    """Rules of a group are evaluated in order: below its cause, a rule sees this minute's and not
    the last one's.
    """
    names = list(ALERTS)
    looking = {
        name: [cause for cause in CAUSES if cause in rule["expr"]] for name, rule in ALERTS.items()
    }
    assert {name for name, causes in looking.items() if causes} == FOLLOWS
    for name, causes in looking.items():
        assert all(names.index(cause) < names.index(name) for cause in causes)


async def exposed() -> dict[str, set[str]]:
    """Every series' name and its labels, as the daemon exposes them, and those it is to expose."""
    found: dict[str, set[str]] = {}
    for stage in (await on_fire(), await quiet(), await stages.shared()):
        for family in text_string_to_metric_families(stage.metrics.text().decode()):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def panels() -> list[str]:
    """Every expression of the dashboard."""
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


async def test_rules_and_dashboard_speak_of_what_there_is() -> None:
    known = await exposed()
    expressions = panels() + [rule["expr"] for rule in RULES]
    assert len(expressions) > 30
    for expression in expressions:
        names = set(re.findall(r"\border_monitor_\w+", expression))
        assert names <= set(known), expression
        grouped = re.findall(r"\b(?:by|on) ?\(([^()]*)\)", expression)
        grouped = [label.strip() for group in grouped for label in group.split(",")]
        selected = re.findall(r"[{,]\s*(\w+)\s*(?:=|!=|=~|!~)", expression)
        own = {"instance", "job"} | (
            {"alertname", "alertstate"} if "ALERTS{" in expression else set()
        )
        assert {*grouped, *selected} <= set[str]().union(*(known[name] for name in names), own), (
            expression
        )


@promtool
def test_each_panel_is_promql(tmp_path: Path) -> None:
    chosen = [e.replace("$instance", ".*").replace("$__rate_interval", "5m") for e in panels()]
    rules = [{"record": f"panel:{n}", "expr": expression} for n, expression in enumerate(chosen)]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_shows_every_metric() -> None:
    text = (DEPLOY / "grafana-dashboard.json").read_text()
    source = (Path(__file__).parents[2] / "order_monitor" / "tell" / "metrics.py").read_text()
    named = {
        f"order_monitor_{n}"
        for n in re.findall(r'_gauge\(\s*"(\w+)"|_histogram\("(\w+)"', source)
        for n in n
        if n
    }
    named |= set(re.findall(r'"(order_monitor_\w+)"', source))
    assert {name for name in named if name not in text} == set()


@pytest.mark.parametrize("name", ["RUNBOOK.md", "RUNBOOK.ar.md"])
def test_every_alert_is_explained(name: str) -> None:
    headings = re.findall(r"^## (\w+)$", (DEPLOY / name).read_text("utf-8"), re.MULTILINE)
    assert headings == list(ALERTS)


def test_each_alert_says_what_and_where() -> None:
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"RUNBOOK.md, {name}"
