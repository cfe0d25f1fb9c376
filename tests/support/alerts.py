"""The alerts that ship, and a daemon on which all of them fire."""

from pathlib import Path
from typing import Any

import yaml

from order_monitor.core.answer import Garbled
from order_monitor.core.decision import StuckReason
from tests.support import stages
from tests.support.clocks import ManualClock
from tests.support.stages import Stage

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
ALERTS = {rule["alert"]: rule for rule in RULES}


class Posting:
    """Stands for the webhook's two numbers."""

    waiting = 0
    dead = 0


async def on_fire() -> Stage:
    clock = ManualClock()
    stage = await stages.on_fire(clock)
    posting: Any = Posting()
    posting.waiting, posting.dead = 500, 3
    stage.view.sender = posting
    stage.engine.state.first_start_held = 3
    stage.stuck(stage.engine.queue.coming(1)[0].order, StuckReason.PIN_DUPLICATE)
    for n in range(5):
        judge = stage.accounts["default"].judge
        judge.judge(str(n), Garbled("not_understood"), clock.monotonic(), due=0.0, limit=99)
    for n in range(20):
        stage.ended(stage.order(90_000), delay=400.0 + n)
    return stage
