"""``make mutants``: plant each bug, and say after how many seeds it was seen."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
SEEDS = 600
_BROKE = re.compile(r"^seed (\d+): (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Mutant:
    """A bug: in ``file``, ``old`` (which stands there once) becomes ``new``; ``also`` elsewhere, where two places guard."""

    name: str
    file: str
    old: str
    new: str
    also: tuple[str, str, str] | None = None

    @property
    def changes(self) -> list[tuple[str, str, str]]:
        """All of them: in which file what becomes what."""
        return [(self.file, self.old, self.new), *([self.also] if self.also else [])]


MUTANTS = (
    Mutant(
        "a shut gate lets no probe through",
        "core/gate.py",
        "return self.is_open or (not self.probing and now >= self._until)",
        "return self.is_open",
    ),
    Mutant(
        "an answer about an old reference is believed",
        "shop/ledger.py",
        "!= finding.order.referans.strip()",
        '!= (row["referans"] or "").strip()',
    ),
    Mutant(
        "a refused question is a cancellation",
        "providers/znet_parser.py",
        "else Refused(code, message)",
        "else Cancelled(message)",
    ),
    Mutant(
        "the PIN is left out",
        "core/decision.py",
        "_end(row, Outcome.COMPLETED, message, rules, pin)",
        "_end(row, Outcome.COMPLETED, message, rules)",
    ),
    Mutant(
        "the time limit never comes",
        "core/decision.py",
        "is_past = may_expire and age >= rules.give_up_after",
        "is_past = may_expire and age >= 1e9 * rules.give_up_after",
    ),
    Mutant(
        "the database's clock is ignored",
        "watch/board.py",
        "before, self.read_at = self.read_at, (now, at)",
        "before, self.read_at = self.read_at, (self.clock.time(), at)",
    ),
    Mutant(
        "no pace",
        "core/gate.py",
        "self._next = max(self._next, now - self.slack) + calls / self.per_second",
        "self._next = now",
    ),
    Mutant(
        "no bound on calls at once",
        "watch/dispatcher.py",
        "        if len(self.calls) < concurrency:",
        "        if concurrency:",
    ),
    Mutant(
        "a pause is not kept",
        "watch/account.py",
        "return self.paused is None and self.is_held(now)",
        "return self.is_held(now)",
    ),
    Mutant(
        "a locked row's answer is dropped",
        "watch/writer.py",
        '            self._hold(finding, _LONGEST_LOCKED, "somebody else holds the row", alone=False)\n            return',
        "            self.backlog.done(finding)\n            return",
    ),
    Mutant(
        "an outage of the database loses the batch",
        "watch/writer.py",
        "return isinstance(error, ShopError) and not isinstance(error, RowRejectedError)",
        "return False",
    ),
    Mutant("Retry-After is obeyed for ever", "core/gate.py", "min(retry_after, LONGEST_RETRY_AFTER)", "retry_after"),
    Mutant(
        "a probe that is not understood is never handed back",
        "watch/judgement.py",
        "account.gate.shut(now, reason, probe=probe, grows=grows)",
        "account.gate.shut(now, reason, probe=False, grows=grows)",
    ),
    Mutant(
        "one PIN goes to two orders",
        "shop/pins.py",
        "                refused[one.order_id] = owner",
        "                refused.pop(one.order_id, None) or owner",
    ),
    Mutant(
        "a code is claimed for the account, and not for its login",
        "shop/ledger.py",
        "self.logins.of(finding.account),",
        "(finding.account,),",
    ),
    Mutant(
        "any PIN closes what is open about that of another dispatch",
        "shop/order_recorder.py",
        "(same := await self._ledger.codes.brought(connection, digests))",
        "(same := set(digests))",
    ),
    Mutant(
        "an answer of another account is believed",
        "shop/ledger.py",
        'row["own"] is not None and row["own"] != finding.account',
        "False",
    ),
    Mutant(
        "a PIN of another dispatch is dropped",
        "shop/ledger.py",
        "review=_OTHER_DISPATCH if finding.pin is not None else None",
        "review=None",
    ),
    Mutant(
        "a PIN for an ended order is dropped",
        "shop/ledger.py",
        "StuckReason.PIN_FOR_ENDED if finding.pin is not None and not finding.by_person else None",
        "None",
    ),
    Mutant(
        "the attempt before is believed although the order was sent anew",
        "shop/ledger.py",
        "return is_moved or (noted.touched > 0",
        "return False and (noted.touched > 0",
    ),
    Mutant(
        "the attempt before is believed once the new time is noted",
        "shop/ledger.py",
        'finding.seen_at - row["sent_at"] < self.rules.first_check',
        "False",
    ),
    Mutant(
        "one of two orders with one reference is believed",
        "shop/ledger.py",
        "if not is_end or noted is None or noted.meant or not noted.twins:",
        "if not is_end or noted is None or noted.meant or noted.twins:",
    ),
    Mutant(
        "only open orders count as having the same reference",
        "shop/ledger.py",
        'twin.root != row["root"] and not',
        'twin.is_open and twin.root != row["root"] and not',
    ),
    Mutant(
        "an order is asked about before its dispatch is noted",
        "watch/rereading.py",
        "return entry.referans is None or not entry.registered or is_old",
        "return entry.referans is None or is_old",
    ),
    Mutant(
        "an order that was moved is asked on as before",
        "watch/intake.py",
        "        elif entry.is_still(order, account):",
        "        elif entry.is_still(order, account) or not order.awaits_pin:",
    ),
    Mutant(
        "an event does not say whose it is",
        "shop/ledger.py",
        "return source, cause, finding.account or CONFIGURED",
        "return source, cause, CONFIGURED",
    ),
    Mutant(
        "a PIN that came late is forgotten",
        "shop/ledger.py",
        "added = await self._add_pins(connection, [r for r in changed if r.finding.order.id in is_late], span)",
        "added: list[Result] = []",
    ),
    Mutant(
        "a page counts as delivered",
        "tell/webhook.py",
        'return ("html_answer", pause) if is_page else ("", None)',
        'return "", None',
    ),
    Mutant(
        "what was ended is not taken up when it is reopened",
        "watch/intake.py",
        "        if ended is None:\n            return False\n",
        "        return ended is not None\n",
    ),
    Mutant(
        "an account that is switched off is asked on",
        "watch/routing.py",
        "return None if integration.enabled else SkipReason.DISABLED",
        "return None",
    ),
    Mutant(
        "a new password is not taken over",
        "watch/routing.py",
        "return integration.base_url, integration.kod, integration.sifre",
        "return integration.base_url, integration.kod, integration.kod",
    ),
    Mutant(
        "a mended login waits as long as the gate",
        "watch/routing.py",
        "= integration, name\n        known.account.gate.retry_now()\n",
        "= integration, name\n",
    ),
    Mutant(
        "a client that is no longer needed is left open",
        "watch/engine.py",
        "for provider in dropped:",
        "for provider in dropped[:0]:",
    ),
    Mutant(
        "a client is closed while it asks",
        "watch/calls.py",
        "        if self._tasks:\n            await asyncio.wait(set(self._tasks))\n        await provider",
        "        await provider",
    ),
    Mutant(
        "a pause goes by the account's name",
        "watch/look.py",
        "pauses.get(key)",
        "pauses.get(account.name)",
    ),
    Mutant(
        "an event counts as delivered before it is posted",
        "tell/webhook.py",
        "        why, pause = await self._post(delivery)\n",
        "        await self._outbox.delivered(delivery.event_id)\n        why, pause = await self._post(delivery)\n",
    ),
    Mutant(
        "an end that was posted is withdrawn",
        "shop/reopening.py",
        "        if not done:\n",
        "        if done is None:\n            return\n        if not done:\n",
    ),
    Mutant(
        "events are written before it is said that they are posted",
        "tell/webhook.py",
        "with suppress(ShopMisfitError):",
        "with suppress(ShopError):",
    ),
    Mutant(
        "what is put up is tried by whoever has any address",
        "tell/webhook.py",
        "if mark is None or self.problem or not places:",
        "if mark is None or not places:",
    ),
    Mutant(
        "who goes by other settings asks all the same",
        "watch/accord.py",
        "before, self.problem = self.problem, problem_of(agreement.differing)",
        'before, self.problem = self.problem, ""',
    ),
    Mutant(
        "an age is believed although a clock has just leapt",
        "core/clocks.py",
        "if not boot >= self._until:",
        "if math.isnan(boot):",
    ),
    Mutant(
        "what was learned asks more seldom than the cap",
        "core/timing/choice.py",
        "return Next(min(age + gap, self",
        "return Next(min(age + 9 * gap, self",
    ),
    Mutant(
        "of a refused batch the last finding is lost",
        "core/backlog.py",
        "self._parts += [batch[:middle], batch[middle:]]",
        "self._parts += [batch[:middle], batch[middle:-1]]",
    ),
    Mutant(
        "of a large refused batch the last finding is lost",
        "core/backlog.py",
        "self._parts += [batch[:middle], batch[middle:]]",
        "self._parts += [batch[:middle], batch[middle : len(batch) - (len(batch) > 8)]]",
    ),
    Mutant(
        "a cancellation is confirmed without its wait",
        "watch/confirmation.py",
        "if before is not None and now - before >= self._confirm:",
        "if before is not None:",
    ),
    Mutant(
        "a cancellation is not withdrawn by what comes between",
        "watch/confirmation.py",
        "                entry.note(cancelled_at=None)\n",
        "",
    ),
    Mutant(
        "a late PIN is written over one that is there",
        "shop/ledger.py",
        '        return is_no_pin(row["pin"], self.rules.no_pin)',
        "        return True",
        also=(
            "core/decision.py",
            "answer.pin is None or not is_no_pin(row.pin, rules.no_pin):",
            "answer.pin is None:",
        ),
    ),
    Mutant(
        "an order fails although its row holds a PIN",
        "core/decision.py",
        "    if not is_no_pin(row.pin, rules.no_pin):\n        return Stuck(StuckReason.FAILED_WITH_PIN)\n",
        "",
    ),
    Mutant(
        "the event of a late PIN moves money",
        "shop/event_sql.py",
        "c.is_late OR COALESCE(t.before, false), c.outcome",
        "COALESCE(t.before, false), c.outcome",
    ),
    Mutant(
        "the second request of a question does not count in the pace",
        "watch/judgement.py",
        "if reply.requests > 1:",
        "if reply.requests > 2:",
    ),
    Mutant(
        "the brake counts accounts, and not logins",
        "shop/brake.py",
        "accounts = sorted({*self.logins.accounts_of(login), *(r.finding.account for r in ends)})",
        "accounts = sorted({r.finding.account for r in ends})",
    ),
    Mutant(
        "the brake lets through before its hold is over",
        "core/brake.py",
        "if now - since < hold else []",
        "if now - since < 0 else []",
    ),
    Mutant(
        "the brake lets through although the controls read cancelled",
        "core/brake.py",
        "        return CANCELLED\n",
        "        return FINE\n",
    ),
    Mutant(
        "the brake never trips",
        "core/brake.py",
        "recent.share > _TIMES_USUAL * usual.share",
        "recent.share > 1 + usual.share",
    ),
    Mutant(
        "what was sent before the first start is ended by its age",
        "shop/ledger.py",
        'finding.vouched and not (row["sent_at"] is not None and row["sent_at"] < held)',
        "finding.vouched",
    ),
    Mutant(
        "what was sent long before the first start is asked about",
        "shop/first_start.py",
        "return self.moment - LEFT_ALONE_BEFORE",
        "return self.moment - 9 * LEFT_ALONE_BEFORE",
    ),
    Mutant(
        "an odd answer is always its account's",
        "core/judge.py",
        "before.is_own = not was_understood and self.are_others_understood(order_id, now)",
        "before.is_own = False",
    ),
    Mutant(
        "an order that is not known is never asked again",
        "watch/judgement.py",
        "        else:\n            self._board.again(entry)\n\n",
        "        else:\n            self._board.plan(entry, None if entry.is_odd else self._board.next_time(entry))\n\n",
    ),
    Mutant(
        "what is not known fails without evidence",
        "core/decision.py",
        "if rules.give_up_unknown and may_expire and unknown.others_understood:",
        "if rules.give_up_unknown:",
    ),
    Mutant(
        "what is not known fails although it is for a person",
        "core/decision.py",
        "if rules.give_up_unknown and may_expire and unknown.others_understood:",
        "if may_expire and unknown.others_understood:",
    ),
    Mutant(
        "an end is written although a person holds them",
        "shop/ledger.py",
        "        results = await self._without_paused(connection, results, ended)\n",
        "",
    ),
)


def planted(mutant: Mutant, folder: Path) -> None:
    """Copy the package and plant the bug.

    Raises:
        ValueError: what it changes is not there, or not once.
    """
    shutil.copytree(ROOT / "order_monitor", folder / "order_monitor", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for file, old, new in mutant.changes:
        path = folder / "order_monitor" / file
        text = path.read_text()
        if text.count(old) != 1:
            msg = f"{mutant.name}: it can no longer be planted in {file} ({text.count(old)} places)"
            raise ValueError(msg)
        path.write_text(text.replace(old, new))


def seen(mutant: Mutant, seeds: int = SEEDS) -> tuple[int, str]:
    """Return the first seed that breaks with the bug, and how; -1 where none does."""
    with tempfile.TemporaryDirectory() as folder:
        planted(mutant, Path(folder))
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seeds", str(seeds), "--short"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": folder},
            capture_output=True,
            text=True,
            check=False,
        )
    found = _BROKE.search(done.stdout)
    if found is None and done.returncode:
        msg = f"{mutant.name}: {done.stderr[-500:]}"
        raise ValueError(msg)
    return (int(found[1]), found[2]) if found else (-1, "")


def main() -> int:
    """Try each."""
    missed = 0
    for mutant in MUTANTS:
        seed, how = seen(mutant)
        missed += seed < 0
        sys.stdout.write(f"{'MISSED' if seed < 0 else f'seed {seed:3}'}  {mutant.name}: {how[:110]}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(MUTANTS) - missed} of {len(MUTANTS)} seen within {SEEDS} seeds\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
