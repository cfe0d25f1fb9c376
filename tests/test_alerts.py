"""Each alert over what the daemon really exposes: it fires where it should, stays silent where all is well, and is explained."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from order_monitor.order import SkipReason
from tests import stages
from tests.clocks import ManualClock
from tests.stages import Stage

DEPLOY = Path(__file__).parent.parent / "deploy"
RULES = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
ALERTS = {rule["alert"]: rule for rule in RULES}

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus")


class Posting:
    """Stands for the webhook's two numbers."""

    waiting = 0
    dead = 0


async def quiet() -> Stage:
    stage = await stages.quiet(ManualClock())
    posting: Any = Posting()
    stage.view.sender = posting
    return stage


async def well() -> Stage:
    stage = await stages.busy(ManualClock())
    stage.engine.book.take("default")
    for entry in list(stage.engine.book):
        stage.engine.book.schedule(entry, stage.clock.time() + 30)
    return stage


async def on_fire() -> Stage:
    clock = ManualClock()
    stage = await stages.on_fire(clock)
    posting: Any = Posting()
    posting.waiting, posting.dead = 500, 3
    stage.view.sender = posting
    for n in range(20):
        stage.ended(stage.order(90_000), delay=400.0 + n)
    return stage


def series(stage: Stage, *, lost: int = 0) -> list[dict[str, str]]:
    """Turn a scrape into what promtool replays for an hour: counters go on at their rate, gauges stay."""
    found = []
    for family in text_string_to_metric_families(stage.metrics.text().decode()):
        for sample in family.samples:
            labels = {**sample.labels, "job": "order-monitor", "instance": "a"}
            name = f"{sample.name}{{{', '.join(f'{k}={json.dumps(v)}' for k, v in labels.items())}}}"
            grows = sample.name.endswith(("_total", "_bucket", "_count", "_sum"))
            is_time = sample.name.endswith("timestamp_seconds")
            value = lost if sample.name.endswith("dropped_total") else sample.value
            value = 0 if is_time else value
            step = value if grows else 60 if is_time and not lost else 0
            found.append({"series": name, "values": f"{value if not grows else 0:g}+{step:g}x80"})
    return found


def fired(tmp_path: Path, given: list[dict[str, str]]) -> set[str]:
    """Return the alerts that fire after an hour of these series."""
    firing = set()
    for name in ALERTS:
        test = {
            "rule_files": [str(DEPLOY / "alerts.yml")],
            "evaluation_interval": "1m",
            "tests": [
                {
                    "interval": "1m",
                    "input_series": given,
                    "promql_expr_test": [
                        {
                            "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) > bool 0',
                            "eval_time": "60m",
                            "exp_samples": [],
                        }
                    ],
                }
            ],
        }
        path = tmp_path / f"{name}.yml"
        path.write_text(yaml.safe_dump(test))
        done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0 or "got:" in done.stdout + done.stderr, done.stdout + done.stderr
        if done.returncode:
            firing.add(name)
    return firing


UP = {"series": 'up{job="order-monitor", instance="a"}', "values": "1+0x80"}


@promtool
def test_the_rules_are_well_formed() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", DEPLOY / "alerts.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@promtool
@pytest.mark.parametrize("make", [quiet, well])
async def test_where_all_is_well_nothing_fires(tmp_path: Path, make: Callable[[], Any]) -> None:
    assert fired(tmp_path, [UP, *series(await make())]) == set()


@promtool
async def test_where_everything_is_wrong_everything_fires(tmp_path: Path) -> None:
    stage = await on_fire()
    stage.engine.state.skipped.update({SkipReason.NO_ROUTING: 2})
    assert fired(tmp_path, series(stage, lost=5)) == set(ALERTS)


@promtool
@pytest.mark.parametrize("up", [[], [{**UP, "values": "0+0x80"}]])
async def test_a_daemon_that_is_gone_is_one_alert(tmp_path: Path, up: list[dict[str, str]]) -> None:
    assert fired(tmp_path, up) == {"OrderMonitorDown"}


async def exposed() -> dict[str, set[str]]:
    """Every series' name and its labels, as the daemon exposes them."""
    found: dict[str, set[str]] = {}
    for stage in (await on_fire(), await quiet()):
        for family in text_string_to_metric_families(stage.metrics.text().decode()):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


async def test_rules_and_dashboard_speak_of_what_there_is() -> None:
    known = await exposed()
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    expressions += [rule["expr"] for rule in RULES]
    assert len(expressions) > 30
    for expression in expressions:
        names = set(re.findall(r"\border_monitor_\w+", expression))
        assert names <= set(known), expression
        grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
        selected = set(re.findall(r"[{,]\s*(\w+)\s*(?:=|!=|=~|!~)", expression))
        labels = set().union(*(known[name] for name in names), {"instance", "job"})
        assert (grouped | selected) - {""} <= labels, expression


def test_the_dashboard_shows_every_metric() -> None:
    """Save what is no number to look at."""
    text = (DEPLOY / "grafana-dashboard.json").read_text()
    unseen = {
        "order_monitor_build_info",
        "order_monitor_log_lines_dropped",
        "order_monitor_last_success_timestamp_seconds",
    }
    source = (Path(__file__).parent.parent / "order_monitor" / "tell" / "metrics.py").read_text()
    named = {
        f"order_monitor_{n}" for n in re.findall(r'_gauge\(\s*"(\w+)"|_histogram\("(\w+)"', source) for n in n if n
    }
    named |= set(re.findall(r'"(order_monitor_\w+)"', source))
    assert {name for name in named - unseen if name not in text} == set()


@pytest.mark.parametrize("name", ["RUNBOOK.md", "RUNBOOK.ar.md"])
def test_every_alert_is_explained(name: str) -> None:
    headings = re.findall(r"^## (\w+)$", (DEPLOY / name).read_text("utf-8"), re.MULTILINE)
    assert headings == list(ALERTS)


def test_each_alert_says_what_and_where() -> None:
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"RUNBOOK.md, {name}"
