"use strict";

const words = JSON.parse(document.getElementById("words").textContent);
const lang = document.documentElement.lang;
const locale = lang === "ar" ? "ar-u-nu-latn" : lang;
const STALE_AFTER = 15;
const POLL_EVERY = 5000;
const LATE = 600;
const small = window.matchMedia("(max-width: 40rem)");
const expanded = new Set();
const numbers = new Intl.NumberFormat(locale, { maximumFractionDigits: 1 });
const clockTime = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const fullTime = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium" });
let shown = null;
let receivedAt = null;

const byId = (id) => document.getElementById(id);
const word = (key) => (Object.hasOwn(words, key) ? words[key] : key);
const number = (value) => (typeof value === "number" && Number.isFinite(value) ? numbers.format(value) : "–");
const list = (value) => (Array.isArray(value) ? value : []);

/** Fill the places of a sentence: say("stale", {n: 5}). */
function say(key, values) {
  return word(key).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function unit(value, name) {
  return new Intl.NumberFormat(locale, { style: "unit", unit: name, unitDisplay: "short", maximumFractionDigits: 1 }).format(value);
}

function duration(seconds) {
  if (typeof seconds !== "number") return "–";
  if (seconds < 60) return unit(seconds < 10 ? Math.round(seconds * 10) / 10 : Math.round(seconds), "second");
  if (seconds < 3600) return unit(Math.round(seconds / 60), "minute");
  if (seconds < 172800) return unit(Math.round(seconds / 360) / 10, "hour");
  return unit(Math.round(seconds / 8640) / 10, "day");
}

function ago(at) {
  return at ? say("ago", { t: duration(Math.max(0, (Date.parse(shown.now) - Date.parse(at)) / 1000)) }) : "–";
}

/** Make an element; children are elements or plain text, never markup. */
function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) if (value !== null) element.setAttribute(key, value);
  element.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

function draw(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function code(text) {
  return make("bdi", { dir: "ltr" }, text || "–");
}

function name(text) {
  return make("bdi", { class: "name" }, text || "–");
}

function mark(state, text) {
  const sign = { ok: "✓", warn: "!", bad: "✕" }[state];
  return make("span", { class: `mark ${state}` }, `${sign} ${text}`);
}

function time(at) {
  const date = new Date(at);
  if (!at || Number.isNaN(date.getTime())) return "–";
  const isToday = date.toDateString() === new Date().toDateString();
  return make("time", { datetime: at, title: fullTime.format(date) }, (isToday ? clockTime : fullTime).format(date));
}

function put(id, ...children) {
  byId(id).replaceChildren(...children);
}

// --- the verdict

function verdictOf(status) {
  if (!status.ready) return "bad";
  const orders = status.orders || {};
  const isShut = list(status.accounts).some((account) => !account.open);
  const isLate = orders.oldest_due_seconds > LATE || (status.events && status.events.oldest_waiting_seconds > LATE);
  const isDead = status.webhook && status.webhook.dead > 0;
  return orders.overdue || orders.stuck || isShut || isLate || isDead || status.reviews ? "warn" : "ok";
}

function showVerdict(status) {
  const state = verdictOf(status);
  const verdict = byId("verdict");
  const text = word({ ok: "healthy", warn: "needs_a_look", bad: "not_healthy" }[state]);
  if (byId("verdict-text").textContent !== text) byId("verdict-text").textContent = text;
  verdict.dataset.state = state;
  const reasons = list(status.reasons).slice(0, 8).map((reason) => make("li", { dir: "auto" }, reason));
  if (byId("reasons").textContent !== reasons.map((reason) => reason.textContent).join("")) put("reasons", ...reasons);
  put("lights", ...Object.entries(status.lights || {}).map(([name, light]) => {
    const sign = light.ok ? mark("ok", word("fine")) : mark("bad", word("fault"));
    const why = light.why ? [make("small", { dir: "auto" }, light.why)] : [];
    return make("li", { "data-light": name, "data-ok": light.ok }, word(`light_${name}`), sign, ...why);
  }));
}

function tile(id, value, state) {
  byId(id).textContent = value;
  const box = byId(`tile-${id}`);
  if (box) box.dataset.state = state || "";
}

function showNumbers(status) {
  const orders = status.orders || {};
  const late = orders.oldest_due_seconds || 0;
  tile("oldest", late ? duration(late) : word("nothing_late"), late > LATE ? "bad" : late > 60 ? "warn" : "");
  tile("open", number(orders.open));
  tile("due", number(orders.due));
  tile("overdue", number(orders.overdue), orders.overdue ? "warn" : "");
  tile("stuck", number(orders.stuck), orders.stuck ? "bad" : "");
  byId("tile-reviews").hidden = !status.reviews;
  tile("reviews", number(status.reviews), status.reviews ? "warn" : "");
  const told = status.webhook || status.events;
  byId("tile-events").hidden = !told;
  if (told) tile("events", number(told.waiting), told.dead ? "bad" : "");
  byId("version").textContent = status.version || "";
  const skipped = Object.entries(orders.skipped || {}).map(([reason, count]) => `${number(count)} × ${word(`why_${reason}`)}`);
  byId("skipped").textContent = skipped.length ? `${word("skipped")}: ${skipped.join(" ")}` : "";
}

// --- charts

function group(limit, previous) {
  return limit === null ? say("over", { t: duration(previous) }) : say("up_to", { t: duration(limit) });
}

/** Horizontal bars with their numbers written beside them; `rows` are {label, count}. */
function bars(id, title, rows) {
  const most = Math.max(1, ...rows.map((row) => row.count));
  const isRtl = document.documentElement.dir === "rtl";
  const label = `${title}: ${rows.map((row) => `${row.label} ${number(row.count)}`).join(", ")}`;
  const svg = draw("svg", { viewBox: `0 0 300 ${rows.length * 24}`, role: "img", "aria-label": label });
  const place = (x, width) => (isRtl ? 300 - x - width : x);
  rows.forEach((row, n) => {
    const width = (row.count / most) * 150;
    svg.append(
      draw("text", { x: isRtl ? 300 : 0, y: n * 24 + 15, class: "label", "text-anchor": "start", direction: isRtl ? "rtl" : "ltr" }, row.label),
      draw("rect", { x: place(95, 150), y: n * 24 + 4, width: 150, height: 14, rx: 3, class: "track" }),
      draw("rect", { x: place(95, width), y: n * 24 + 4, width, height: 14, rx: 3, class: "bar" }),
      draw("text", { x: place(252, 0), y: n * 24 + 15, "text-anchor": "start", direction: isRtl ? "rtl" : "ltr" }, number(row.count)),
    );
  });
  put(id, svg);
}

function groups(rows) {
  return list(rows).map((row, n) => ({ label: group(row.up_to, n ? rows[n - 1].up_to : 0), count: row.count || 0 }));
}

function showHistory(minutes) {
  const open = list(minutes).map((minute) => minute.open || 0);
  if (open.length < 2) {
    put("history", make("p", { class: "empty" }, word("no_history")));
    return;
  }
  const most = Math.max(1, ...open);
  const step = 300 / (open.length - 1);
  const points = open.map((value, n) => `${(n * step).toFixed(1)},${(100 - (value / most) * 90).toFixed(1)}`).join(" ");
  const ended = minutes.reduce((sum, minute) => sum + (minute.ended || 0), 0);
  const label = say("history_label", { m: number(open.length), now: number(open.at(-1)), most: number(most), ended: number(ended) });
  const svg = draw("svg", { viewBox: "0 0 300 100", role: "img", "aria-label": label });
  svg.append(draw("polygon", { class: "area", points: `0,100 ${points} 300,100` }), draw("polyline", { class: "line", points }));
  put("history", svg, make("p", { class: "more" }, label));
}

function showCharts(status) {
  const found = status.detection_seconds || {};
  bars("ages", word("by_age"), groups((status.orders || {}).by_age));
  const isKnown = typeof found.p50 === "number";
  byId("quantiles").textContent = isKnown ? say("quantiles", { p50: duration(found.p50), p95: duration(found.p95) }) : word("no_ends");
  if (isKnown) bars("delays", word("detection"), groups(found.buckets));
  else put("delays");
  showHistory(status.history);
}

// --- tables

/** Fill a table; each row is {key: [attribute, value], cells: […]}, its first cell the row's heading. */
function table(id, heads, rows, empty) {
  const wanted = byId("search").value.trim().toLowerCase();
  const kept = rows.filter((row) => !wanted || row.cells.some((cell) => textOf(cell).includes(wanted)));
  const few = expanded.has(id) ? kept.length : small.matches ? 6 : 20;
  const head = make("tr", { role: "row" }, ...heads.map((name) => make("th", { scope: "col", role: "columnheader" }, word(name))));
  const body = kept.slice(0, few).map((row) => make("tr", { role: "row", [row.key[0]]: row.key[1] }, ...row.cells.map((cell, n) => cellOf(cell, heads[n], n === 0))));
  if (!kept.length) body.push(make("tr", { role: "row" }, make("td", { class: "empty", colspan: heads.length, role: "cell" }, word(wanted ? "nothing_found" : empty))));
  const element = byId(id);
  element.setAttribute("role", "table");
  element.replaceChildren(make("thead", { role: "rowgroup" }, head), make("tbody", { role: "rowgroup" }, ...body));
  showMore(id, kept.length - few);
}

function cellOf(cell, head, isFirst) {
  const attributes = { "data-head": word(head), class: cell instanceof Node ? null : "n" };
  if (isFirst) return make("th", { ...attributes, scope: "row", role: "rowheader" }, make("span", {}, cell));
  return make("td", { ...attributes, role: "cell" }, make("span", {}, cell));
}

/** Offer the rest of a long table. */
function showMore(id, rest) {
  const section = byId(id).closest("section");
  const button = section.querySelector("button.more") || section.appendChild(make("button", { class: "more", type: "button" }));
  button.hidden = rest <= 0;
  button.textContent = say("show_all", { n: number(rest) });
  button.onclick = () => { expanded.add(id); show(shown, receivedAt); };
}

function textOf(cell) {
  return (cell instanceof Node ? cell.textContent : String(cell)).toLowerCase();
}

function why(reason) {
  const key = `why_${reason}`;
  return Object.hasOwn(words, key) ? make("span", {}, `${words[key]} `, code(reason)) : code(reason);
}

function gate(account) {
  const cell = make("span", {});
  if (account.paused) cell.append(mark("warn", word("paused")), " ", make("span", { dir: "auto" }, account.paused.reason || ""), make("div", { class: "note" }, make("bdi", { class: "name" }, account.paused.by || ""), " · ", ago(account.paused.since)));
  else if (account.open) cell.append(mark("ok", word("gate_open")));
  else cell.append(mark("bad", word("gate_closed")), " ", why(account.reason || ""));
  if (typeof account.next_probe_seconds === "number") cell.append(make("div", { class: "note" }, say("next_probe", { t: duration(account.next_probe_seconds) })));
  return cell;
}

function showAccounts(accounts) {
  const isBalance = accounts.some((account) => account.balance);
  const heads = ["account", "gate", "orders_open", "due", "in_flight", "rate", "last_error", "last_answer", ...(isBalance ? ["balance"] : [])];
  table("accounts", heads, accounts.map((account) => ({
    key: ["data-account", account.name],
    cells: [
      name(account.name), gate(account), number(account.orders), number(account.due), number(account.in_flight),
      say("of_limit", { n: number(account.calls_per_second), limit: number(account.limit_per_second) }),
      account.last_error ? why(account.last_error) : "–", ago(account.last_answer_at), ...(isBalance ? [account.balance || "–"] : []),
    ],
  })), "no_accounts");
}

function showLists(status) {
  table("problems", ["order", "problem", "rule", "account", "age"], list(status.problems).map((problem) => ({
    key: ["data-order", problem.order_id],
    cells: [code(problem.order_id), mark(problem.kind === "skipped" ? "warn" : "bad", word(`kind_${problem.kind}`)), why(problem.why), name(problem.account), ago(problem.since)],
  })), "no_problems");
  table("recent", ["order", "change", "pin", "account", "at"], list(status.recent).map((change) => ({
    key: ["data-order", change.order_id],
    cells: [code(change.order_id), make("span", {}, code(change.from), " → ", code(change.to)), change.has_pin ? word("with_pin") : "–", name(change.account), time(change.at)],
  })), "no_changes");
  table("next", ["order", "account", "at"], list(status.next).map((check) => ({
    key: ["data-order", check.order_id], cells: [code(check.order_id), name(check.account), time(check.at)],
  })), "no_next");
  table("failures", ["at", "account", "outcome", "rule"], list(status.failures).map((failure) => ({
    key: ["data-account", failure.account], cells: [time(failure.at), name(failure.account), word(`outcome_${failure.outcome}`), why(failure.why)],
  })), "no_failures");
}

// --- life

function show(status, at = Date.now()) {
  shown = status;
  receivedAt = at;
  showVerdict(status);
  showNumbers(status);
  showCharts(status);
  showAccounts(list(status.accounts));
  showLists(status);
  showFreshness();
}

function showFreshness() {
  const seconds = receivedAt === null ? null : Math.round((Date.now() - receivedAt) / 1000);
  const isStale = seconds !== null && seconds > STALE_AFTER;
  const place = byId("freshness");
  place.textContent = seconds === null ? word("connecting") : say(isStale ? "stale" : "fresh", { t: duration(seconds) });
  place.dataset.stale = String(isStale);
}

async function poll() {
  try {
    const answer = await fetch("api/status", { cache: "no-store" });
    if (answer.ok) show(await answer.json());
  } catch {
    showFreshness();
  }
}

function listen() {
  const stream = new EventSource("api/stream");
  stream.addEventListener("status", (event) => show(JSON.parse(event.data)));
  stream.addEventListener("error", () => {
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, POLL_EVERY);
    poll();
  });
}

for (const place of document.querySelectorAll("[data-word]")) place.textContent = word(place.dataset.word);
for (const place of document.querySelectorAll("[data-label]")) place.setAttribute("aria-label", word(place.dataset.label));
document.querySelector(`nav a[lang="${lang}"]`).setAttribute("aria-current", "true");
byId("search").addEventListener("input", () => shown && show(shown, receivedAt));
setInterval(showFreshness, 1000);
listen();
poll();
