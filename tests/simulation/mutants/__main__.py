"""``make mutants``: plant each bug, and report after how many seeds it was detected."""

import argparse
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
    """A bug: in ``file``, ``old`` (which occurs there once) becomes ``new``.

    ``also`` changes a second place, if two places guard.
    """

    name: str
    file: str
    old: str
    new: str
    also: tuple[str, str, str] | None = None

    @property
    def changes(self) -> list[tuple[str, str, str]]:
        """Return all changes: the file, the old text and the new."""
        return [(self.file, self.old, self.new), *([self.also] if self.also else [])]


MUTANTS = (
    Mutant(
        "a PIN that is read while ends are held is not kept in mind",
        "shop/writing/order_writer.py",
        "await self._row_writer.held_pins.note(connection, results)",
        "pass",
    ),
    Mutant(
        "a shut gate lets no probe through",
        "core/gate.py",
        "return self.is_open or (not self.probing and now >= self._until)",
        "return self.is_open",
    ),
    Mutant(
        "an answer about an old reference is believed",
        "shop/writing/dispatches.py",
        "!= reference.strip()",
        '!= (row["reference"] or "").strip()',
    ),
    Mutant(
        "a refused question is a cancellation",
        "providers/znet/parser.py",
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
        "watch/context.py",
        "before, self.read_at = self.read_at, (now, at)",
        "before, self.read_at = self.read_at, (self.clock.time(), at)",
    ),
    Mutant(
        "a stop waits for no write",
        "watch/lifecycle.py",
        "await asyncio.wait([writing], timeout=max(0.0, end - loop.time()))",
        "await asyncio.wait([writing], timeout=0.0)",
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
        "watch/write_queue.py",
        '            self._hold(finding, _LONGEST_LOCKED, "another session holds the row", alone=False)\n            return',
        "            self.backlog.done(finding)\n            return",
    ),
    Mutant(
        "an outage of the database loses the batch",
        "watch/write_queue.py",
        "return isinstance(error, ShopError) and not isinstance(error, RowRejectedError)",
        "return False",
    ),
    Mutant(
        "Retry-After is obeyed for ever",
        "core/gate.py",
        "min(retry_after, LONGEST_RETRY_AFTER)",
        "retry_after",
    ),
    Mutant(
        "a probe that is not understood is never handed back",
        "watch/answer_handler.py",
        "account.gate.shut(self._monotonic(), reason, probe=probe, grows=grows)",
        "account.gate.shut(self._monotonic(), reason, probe=False, grows=grows)",
    ),
    Mutant(
        "one PIN goes to two orders",
        "shop/writing/pins.py",
        "                refused[one.order_id] = owner",
        "                refused.pop(one.order_id, None) or owner",
    ),
    Mutant(
        "a code is claimed for the account, and not for its login",
        "shop/writing/row_writer.py",
        "self.logins.of(finding.account),",
        "(finding.account,),",
    ),
    Mutant(
        "any PIN closes what is open about that of another dispatch",
        "shop/writing/order_writer.py",
        "(same := await self._row_writer.codes.brought(connection, digests))",
        "(same := set(digests))",
    ),
    Mutant(
        "an answer of another account is believed",
        "shop/writing/dispatches.py",
        'row["own"] != account',
        "False",
    ),
    Mutant(
        "a PIN of another dispatch is dropped",
        "shop/writing/row_writer.py",
        "review=_OTHER_DISPATCH if finding.pin is not None else None",
        "review=None",
        also=(
            "shop/writing/held_pins.py",
            "result.fate in (WriteStatus.HELD, WriteStatus.RESENT)",
            "result.fate is WriteStatus.HELD",
        ),
    ),
    Mutant(
        "a PIN for an ended order is dropped",
        "shop/writing/row_writer.py",
        "StuckReason.PIN_FOR_ENDED if finding.pin is not None and not finding.by_person else None",
        "None",
    ),
    Mutant(
        "the attempt before is believed although the order was sent anew",
        "shop/writing/row_writer.py",
        "return is_moved or (",
        "return False and (",
    ),
    Mutant(
        "the attempt before is believed once the new time is noted",
        "shop/writing/row_writer.py",
        'finding.seen_at - row["sent_at"] < self.rules.first_check',
        "False",
    ),
    Mutant(
        "one of two orders with one reference is believed",
        "shop/writing/row_writer.py",
        "if not is_end or noted is None or noted.meant or not noted.twins:",
        "if not is_end or noted is None or noted.meant or noted.twins:",
    ),
    Mutant(
        "only open orders count as having the same reference",
        "shop/writing/row_writer.py",
        'twin.root != row["root"] and not',
        'twin.is_open and twin.root != row["root"] and not',
    ),
    Mutant(
        "an order is asked about before its dispatch is noted",
        "watch/discovery.py",
        "return not entry.registered or (account is not None",
        "return (account is not None",
    ),
    Mutant(
        "an order that was moved is asked on as before",
        "watch/intake.py",
        "        elif entry.is_still(order, account):",
        "        elif entry.is_still(order, account) or not order.awaits_pin:",
    ),
    Mutant(
        "an event does not say whose it is",
        "shop/writing/parameters.py",
        "lambda c: c.finding.account or CONFIGURED",
        "lambda c: CONFIGURED",
    ),
    Mutant(
        "a PIN that came late is forgotten",
        "shop/writing/row_writer.py",
        "[r for r in changed if r.order_id in is_late], span",
        "[], span",
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
        "integration.password,\n        integration.proxy,",
        "integration.user,\n        integration.proxy,",
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
        "watch/scan_run.py",
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
        "shop/writing/reopening.py",
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
        "watch/settings_guard.py",
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
        "timing/planner.py",
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
        "core/confirmation.py",
        "if rest > _ROUNDING else None",
        "if since is not None else None",
    ),
    Mutant(
        "a cancellation is not withdrawn by what comes between",
        "shop/writing/order_writer.py",
        "or (kind == UNCONFIRMED and i in contradicted)",
        "",
        also=(
            "core/confirmation.py",
            "finding.other_at is not None and finding.other_at > first.since",
            "False",
        ),
    ),
    Mutant(
        "a late PIN is written over one that is there",
        "shop/writing/row_writer.py",
        '        return is_no_pin(row["pin"], self.rules.no_pin)',
        "        return True",
        also=(
            "core/decision.py",
            "answer.pin is None or not is_no_pin(row.pin, rules.no_pin)",
            "answer.pin is None",
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
        "shop/writing/event_sql.py",
        "c.is_late OR COALESCE(t.before, false), c.outcome",
        "COALESCE(t.before, false), c.outcome",
    ),
    Mutant(
        "the second request of a question does not count in the pace",
        "watch/answer_handler.py",
        "if call.batch.requests > 1:",
        "if call.batch.requests > 2:",
    ),
    Mutant(
        "the brake counts accounts, and not logins",
        "shop/writing/brake.py",
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
        "return CANCELLED",
        "return FINE",
    ),
    Mutant(
        "the brake never trips",
        "core/brake.py",
        "recent.share > _TIMES_USUAL * usual.share",
        "recent.share > 1 + usual.share",
    ),
    Mutant(
        "what was sent before the first start is ended by its age",
        "shop/writing/row_writer.py",
        'and not (row["sent_at"] is not None and row["sent_at"] < held)',
        "",
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
        "watch/answer_handler.py",
        "        else:\n            self._context.again(entry)\n\n",
        "        else:\n            self._context.plan(entry, None if entry.is_odd else self._context.next_time(entry))\n\n",
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
        "shop/writing/row_writer.py",
        "return await self._without_paused(connection, results, ended), standing",
        "return results, standing",
    ),
    Mutant(
        "it is ready although the orders cannot be read",
        "tell/readiness.py",
        "if self._clock.monotonic() - looked_at > limit:",
        "if self._clock.monotonic() - looked_at > 1e9 * limit:",
    ),
    Mutant(
        "it is ready although every write is refused",
        "core/standstill.py",
        "if not long_ago or len(self._refused) + len(waiting) < FEWEST:",
        "if not waiting or len(waiting) < FEWEST:",
    ),
    Mutant(
        "it is not ready when the first answer comes after a quiet minute",
        "watch/write_queue.py",
        "        if not self.backlog.free.total():\n            self._progress_at = now\n",
        "",
    ),
    Mutant(
        "it is not ready while an account of several is shut",
        "tell/readiness.py",
        "if any(account.is_well(now) for account in accounts):",
        "if accounts and all(account.is_well(now) for account in accounts):",
    ),
    Mutant(
        "the page shows the most reviews there ever were",
        "watch/discovery.py",
        "self._state.events_waiting, self._state.reviews = scan.waiting, scan.reviews",
        "self._state.events_waiting, self._state.reviews = scan.waiting, max(scan.reviews, self._state.reviews)",
    ),
    Mutant(
        "the page shows the events of the first look",
        "watch/discovery.py",
        "self._state.events_waiting, self._state.reviews = scan.waiting, scan.reviews",
        "self._state.events_waiting, self._state.reviews = self._state.events_waiting or scan.waiting, scan.reviews",
    ),
    Mutant(
        "the most open orders there ever were are reported",
        "watch/discovery.py",
        "self._state.open = run.found + self._apart.left_alone",
        "self._state.open = max(self._state.open, run.found + self._apart.left_alone)",
    ),
    Mutant(
        "the page shows when an account was understood first",
        "watch/answer_handler.py",
        "account.answered_at = self._context.now()",
        "account.answered_at = account.answered_at or self._context.now()",
    ),
    Mutant(
        "the page shows the PIN",
        "tell/history.py",
        '"has_pin": write.pin is not None,',
        '"has_pin": write.pin.reveal() if write.pin else "",',
    ),
    Mutant(
        "an order that the shop gives another time at each save is never asked about",
        "watch/intake.py",
        "if before != (order.reference, account, order.awaits_pin):",
        "if before != (order.reference, account, order.awaits_pin) or sent_at != order.sent_at:",
    ),
    Mutant(
        "a stranger's order ends as the one it names",
        "shop/writing/chains.py",
        'f"WHERE COALESCE({is_named}, false) AND NOT',
        'f"WHERE true AND NOT',
    ),
    Mutant(
        "a PIN that came late goes up no chain",
        "watch/chains.py",
        "count = len(written) + await self._late_pins(met)",
        "count = len(written)",
    ),
    Mutant(
        "an order that another tenant took ends without its child's PIN",
        "shop/writing/chains.py",
        "return Completed(pin, without_codes(pin.masked(message)))",
        "return Completed(None, without_codes(pin.masked(message)))",
    ),
    Mutant(
        "an end by a child counts as an answer's",
        "shop/writing/parameters.py",
        "return Cause.CHILD if self.finding.child is not None else self.write.cause",
        "return self.write.cause",
    ),
    Mutant(
        "a replay posts what a reopening has withdrawn",
        "shop/outbox.py",
        "AND NOT ({is_withdrawn(self._schema, 'e')}) \"\n                \"ON CONFLICT (event_id)",
        '"\n                "ON CONFLICT (event_id)',
    ),
    Mutant(
        "an account that was taken over is never asked",
        "cluster/takeover.py",
        "        del self._under_way[plan]\n        self._follow_plans()",
        "        self._follow_plans()",
    ),
    Mutant(
        "who takes an account over asks again what was asked",
        "cluster/takeover.py",
        "if due is not None and last is not None and due <= last - MARGIN:",
        "if due is not None and last is not None and due <= 0:",
    ),
    Mutant(
        "when another member held an account is not noted",
        "cluster/members.py",
        "self._seen.update({key: self._last(key, member, now) for key in member.keys})",
        "self._seen.update({})",
    ),
    Mutant(
        "the orders of an account that was taken over are not read",
        "cluster/takeover.py",
        "            await self._read(unread)\n",
        "",
    ),
    Mutant(
        "the rechecks of an account that was taken over are forgotten",
        "watch/recheck.py",
        "        self._taken.update(accounts)\n",
        "        return\n",
    ),
    Mutant(
        "a free account is left to others for good",
        "cluster/sharing.py",
        "return wanted[:room] + [key for key in wanted[room:] if free[key] >= PATIENCE]",
        "return wanted[: max(0, room - 1)]",
    ),
    Mutant(
        "no member leads after the leader's end",
        "cluster/handover.py",
        "if not any(member.leads for member in view.members):",
        "if len(view.members) == 1:",
    ),
    Mutant(
        "every member leads",
        "cluster/members.py",
        "self.leads_until = asked_at + LEASE if leads else NOT_HELD",
        "self.leads_until = asked_at + LEASE",
    ),
    Mutant(
        "an account goes to a member that cannot reach its provider either",
        "cluster/reach.py",
        "isinstance(provider, Reachable) and await provider.is_reached()",
        "isinstance(provider, Reachable)",
    ),
    Mutant(
        "an account stays with a member that cannot reach its provider",
        "cluster/reach.py",
        "reached = {key for one in view.members if one is not view.me for key in one.reaches}",
        "reached = set[str]()",
    ),
    Mutant(
        "a PIN that cannot be read is for no person",
        "core/decision.py",
        "(StuckReason.PIN_UNREADABLE, 1)",
        "(StuckReason.PIN_UNREADABLE, 9)",
    ),
    Mutant(
        "a PIN that cannot be read is for a person only if nothing odd came before",
        "watch/answer_handler.py",
        "unknown >= allowed[1] and entry.rare.stuck != allowed[0]",
        "unknown == allowed[1]",
    ),
    Mutant(
        "an unknown state is a cancellation",
        "providers/znet/parser.py",
        "        case _:\n            return None\n\n\ndef _reason",
        "        case _:\n            return Cancelled(message)\n\n\ndef _reason",
    ),
    Mutant(
        "of two answers the first is believed",
        "providers/znet/parser.py",
        "if _has_lines_of_two(text):",
        "if not text:",
    ),
    Mutant(
        "an answer that was cut counts as whole",
        "providers/znet/parser.py",
        "    if len(fields) < _FIELDS:\n",
        "    fields += [''] * (_FIELDS - len(fields))\n    if len(fields) < _FIELDS:\n",
    ),
    Mutant(
        "an empty answer is a cancellation",
        "providers/znet/parser.py",
        'return Blocked("empty_answer")',
        'return Cancelled("")',
    ),
    Mutant(
        "the clock that is ahead ends orders by their age",
        "core/check_result.py",
        "return min(self.seen_at, self.seen_at if",
        "return max(self.seen_at, self.seen_at if",
        also=(
            "watch/context.py",
            "and min(self.now(), self.clock.time()) - order.sent_at",
            "and max(self.now(), self.clock.time()) - order.sent_at",
        ),
    ),
    Mutant(
        "the cancellation of another dispatch counts as the first of two",
        "core/confirmation.py",
        "return is_same and not (",
        "return not (",
    ),
    Mutant(
        "a cancellation from before the order was sent again counts as the first of two",
        "core/confirmation.py",
        "return is_same and not (is_before or",
        "return is_same and not (",
    ),
    Mutant(
        "a PIN is added to what a person has ended",
        "shop/writing/row_writer.py",
        'if row["source"] == PERSON}',
        'if row["source"] is None}',
    ),
    Mutant(
        "an event that was refused counts as delivered",
        "tell/webhook.py",
        "if 200 <= status < 300:",
        "if 200 <= status < 600:",
    ),
    Mutant(
        "a PIN replaces another one in an open order",
        "core/decision.py",
        "    if not is_no_pin(row.pin, rules.no_pin):\n        return Stuck(StuckReason.PIN_DIFFERS)\n",
        "",
    ),
    Mutant(
        "an order that was sent again is not asked any more",
        "watch/result_handler.py",
        "            self._queue.schedule(entry, self._context.now() + wait)",
        "            wait = wait",
    ),
    Mutant(
        "a write that waits for a lock alone is lost in a batch",
        "core/backlog.py",
        "elif batch or now < self._alone_from:\n                kept.append(item)",
        "elif batch or now < self._alone_from:\n                kept = kept",
    ),
    Mutant(
        "of a half that is too large the rest is lost",
        "core/backlog.py",
        "        parts.appendleft(part[limit:])",
        "        parts = parts",
    ),
    Mutant(
        "an order that could not be read again before its dispatch is noted hangs",
        "watch/discovery.py",
        "in_hand = [entry for entry in entries if entry.stage is Stage.ASKING]",
        "in_hand = [e for e in entries if e.stage is Stage.ASKING and e.registered]",
    ),
    Mutant(
        "an order whose answer cannot be written is not asked any more",
        "watch/result_handler.py",
        "self._still_open(entry, result)\n                    self._context.again(entry)",
        "self._still_open(entry, result)\n                    if result.stuck is None: self._context.again(entry)",
    ),
    Mutant(
        "what the brake holds is not asked any more",
        "watch/held.py",
        "            context.queue.schedule(entry, context.now() + ASK_EVERY)",
        "            context.queue.idle(entry)",
    ),
    Mutant(
        "an order's end closes all that is open about it",
        "shop/writing/order_writer.py",
        "if kind in _settled_by(settled[i])]",
        "]",
    ),
    Mutant(
        "any order may have another one's code",
        "shop/writing/pins.py",
        'or owner["root"] == one.root',
        'or owner["root"] is not None',
    ),
    Mutant(
        "a PIN that the database refuses is not kept in mind",
        "shop/writing/held_pins.py",
        "StuckReason.REJECTED_BY_DATABASE, StuckReason.CHANGED_BY_TRIGGER, StuckReason.REFERENCE_TWICE,",
        "StuckReason.REFERENCE_TWICE,",
    ),
    Mutant(
        "a PIN that may be of either of two orders is not kept in mind",
        "shop/writing/held_pins.py",
        "StuckReason.CHANGED_BY_TRIGGER, StuckReason.REFERENCE_TWICE,",
        "StuckReason.CHANGED_BY_TRIGGER,",
    ),
    Mutant(
        "an event waits for a clock that has gone back",
        "shop/outbox.py",
        'f"AND {_IS_DUE} AND NOT EXISTS',
        'f"AND d.next_at <= clock_timestamp() AND NOT EXISTS',
    ),
    Mutant(
        "a command's settings agree though they differ",
        "shop/money_settings.py",
        "return Agreement(in_force, added, differing=differing)",
        "return Agreement(in_force, added, differing=differing if me is not None else ())",
    ),
    Mutant(
        "a command stores its own settings over those in force",
        "shop/money_settings.py",
        "may_replace and bool(differing)",
        "(may_replace or me is None) and bool(differing)",
    ),
)


def places_of(text: str, old: str) -> list[tuple[int, int]]:
    """Return the position of ``old`` in ``text``, regardless of line breaks."""
    pattern = r"\s*".join(
        rf"(?:,\s*)?{re.escape(sign)}" if sign in ")]}" else re.escape(sign)
        for sign in old
        if not sign.isspace()
    )
    # A match that begins with a line's indentation replaces that too.
    before, after = (r" *" if sign.isspace() else "" for sign in (old[0], old[-1]))
    return [found.span() for found in re.finditer(f"{before}{pattern}{after}", text)]


def copied(folder: Path) -> None:
    """Copy the package and its tests."""
    for name in ("order_monitor", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def planted(mutant: Mutant, folder: Path) -> None:
    """Copy the package and plant the bug.

    Raises:
        ValueError: the old text is missing, or occurs more than once.
    """
    copied(folder)
    for file, old, new in mutant.changes:
        path = folder / "order_monitor" / file
        text = path.read_text()
        places = places_of(text, old)
        if len(places) != 1:
            msg = f"{mutant.name}: it can no longer be planted in {file} ({len(places)} places)"
            raise ValueError(msg)
        begin, end = places[0]
        path.write_text(f"{text[:begin]}{new}{text[end:]}")


def seen(mutant: Mutant, seeds: int = SEEDS) -> tuple[int, str]:
    """Return the first seed that breaks with the bug, and how; -1 if none does."""
    with tempfile.TemporaryDirectory() as folder:
        planted(mutant, Path(folder))
        return first_broken(Path(folder), seeds)


def first_broken(folder: Path, seeds: int, timeout: float | None = None) -> tuple[int, str]:
    """Return the first seed that breaks in this copy, and how; -1 if none does.

    Raises:
        ValueError: the simulation does not run there.
        subprocess.TimeoutExpired: it takes longer than ``timeout`` seconds.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seeds", str(seeds), "--short"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    found = _BROKE.search(done.stdout)
    if found is None and done.returncode:
        raise ValueError(done.stderr[-500:])
    return (int(found[1]), found[2]) if found else (-1, "")


def main() -> int:
    """Try each, or some."""
    parser = argparse.ArgumentParser(prog="make mutants")
    parser.add_argument("--since", type=int, default=0, help="leave out so many")
    parser.add_argument("--named", default="", help="only those with these words in their names")
    args = parser.parse_args()
    chosen = [one for one in MUTANTS[args.since :] if args.named in one.name]
    missed = 0
    for mutant in chosen:
        seed, how = seen(mutant)
        missed += seed < 0
        sys.stdout.write(
            f"{'MISSED' if seed < 0 else f'seed {seed:3}'}  {mutant.name}: {how[:110]}\n"
        )
        sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - missed} of {len(chosen)} seen within {SEEDS} seeds\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
