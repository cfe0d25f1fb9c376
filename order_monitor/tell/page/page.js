"use strict";

const words = JSON.parse(document.getElementById("words").textContent);
const lang = document.documentElement.lang;
const locale = lang === "ar" ? "ar-u-nu-latn" : lang;
const isRtl = document.documentElement.dir === "rtl";
const STALE_AFTER = 15;
const POLL_EVERY = 5000;
const LATE = 600;
const LONGEST = 200;
const SHORTEST_NAME = 4;
const SEEK_AFTER = 700;
const SIGNS = { ok: "✓", warn: "!", bad: "✕" };
const small = window.matchMedia("(max-width: 40rem)");
const expanded = new Set();
const numbers = new Intl.NumberFormat(locale, { maximumFractionDigits: 1 });
const relatives = new Intl.RelativeTimeFormat(locale);
const clockTime = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const fullTime = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
const openedAt = Date.now();
let shown = null;
let receivedAt = null;
let stream = null;
let streamedAt = 0;
let triedAt = 0;
let matches = 0;
let seeking = null;
let found = null;

// --- words, numbers and times

const byId = (id) => document.getElementById(id);
const list = (value) => (Array.isArray(value) ? value : []);
const dict = (value) => (value !== null && typeof value === "object" && !Array.isArray(value) ? value : {});
const dicts = (value) => list(value).map(dict);
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const amount = (value) => (isNumber(value) ? Math.max(0, value) : 0);
const number = (value) => (isNumber(value) ? numbers.format(value) : "–");
const word = (key) => (Object.hasOwn(words, key) ? words[key] : key);

/** Fill the places of a sentence: say("stale", {t: "5 min"}). */
function say(key, values) {
  return word(key).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** The word for one of a set of names, or the name itself where there is none. */
function term(set, value) {
  return Object.hasOwn(words, `${set}_${value}`) ? words[`${set}_${value}`] : clean(value);
}

/** Other people's text: of bearable length, its control and direction characters made visible. */
function clean(value) {
  const text = String(value ?? "").replace(/[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, "\ufffd");
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}

/** What the search compares: without case, accents, or the Turkish difference of i and ı. */
function fold(text) {
  return text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase().replaceAll("ı", "i").trim();
}

function inUnits(seconds) {
  if (seconds < 9.95) return [Math.round(seconds * 10) / 10, "second"];
  if (seconds < 59.5) return [Math.round(seconds), "second"];
  if (seconds < 3570) return [Math.round(seconds / 60), "minute"];
  if (seconds < 172800) return [Math.round(seconds / 360) / 10, "hour"];
  return [Math.round(seconds / 8640) / 10, "day"];
}

function duration(seconds) {
  if (!isNumber(seconds)) return "–";
  const [value, unit] = inUnits(Math.max(0, seconds));
  const unitDisplay = lang === "en" ? "short" : "long";
  return new Intl.NumberFormat(locale, { style: "unit", unit, unitDisplay, maximumFractionDigits: 1 }).format(value);
}

function timeTag(at, text) {
  const date = new Date(at ?? NaN);
  if (Number.isNaN(date.getTime())) return "–";
  return make("time", { datetime: date.toISOString(), title: fullTime.format(date) }, text(date));
}

function time(at) {
  const today = new Date().toDateString();
  return timeTag(at, (date) => (date.toDateString() === today ? clockTime : fullTime).format(date));
}

/** How far from the document's own time: "5 minutes ago", "in 3 seconds". */
function fromNow(at) {
  return timeTag(at, (date) => {
    const seconds = Math.round((date - (Date.parse(shown.now) || Date.now())) / 1000);
    const [value, unit] = inUnits(Math.abs(seconds));
    return relatives.format(seconds > 0 ? value : -value, unit);
  });
}

// --- building

/** Make an element; children are elements or plain text, never markup. */
function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function draw(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Let a place hold these elements; those that say the same stay, with what is selected or focused in them. */
function patch(place, ...children) {
  children.forEach((child, n) => {
    const old = place.childNodes[n];
    if (!old) place.append(child);
    else if (!old.isEqualNode(child)) old.replaceWith(child);
  });
  while (place.childNodes.length > children.length) place.lastChild.remove();
}

function write(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

const code = (text, kind = "code") => make("bdi", { dir: "ltr", class: kind }, clean(text) || "–");
const name = (text) => make("bdi", {}, clean(text) || "–");
const mark = (state, text) => make("span", { class: `mark ${state}` }, `${SIGNS[state]} ${text}`);
const note = (...children) => make("span", { class: "note own-line" }, ...children);
const empty = (key) => make("p", { class: "empty" }, word(key));

/** A rule by its sentence and its name: "No answer in time. timeout". */
function why(reason) {
  const [, family, rest] = /^(refused|http)_(\w+)$/.exec(reason) || [];
  if (Object.hasOwn(words, `why_${reason}`)) return make("span", { class: "why" }, `${words[`why_${reason}`]} `, code(reason));
  if (family) return make("span", { class: "why" }, `${say(`why_${family}_n`, { n: rest })} `, code(reason));
  return code(reason);
}

/** What went wrong, and below it what the provider said in place of an answer. */
function failure(reason, said) {
  if (!reason) return "–";
  const cell = make("span", {}, why(reason));
  if (said) cell.append(note(make("bdi", {}, say("said", { text: clean(said) }))));
  return cell;
}

// --- the verdict

/** Everything a person should look at, in sentences; what that is, the program decides (tell/attention.py). */
function causes(status) {
  return dicts(status.attention).map((cause) => say(`cause_${cause.kind}`, {
    n: number(cause.n), all: number(cause.all), t: duration(cause.t), why: clean(cause.why), name: term("light", cause.light),
  }));
}

function showVerdict(status) {
  const told = list(status.reasons).slice(0, 8).map((reason) => make("li", { dir: "auto", lang: "en" }, clean(reason)));
  const found = causes(status);
  const judged = { healthy: "ok", needs_a_look: "warn", not_healthy: "bad" }[status.verdict] ?? "bad";
  const state = judged === "ok" && isStale() ? "warn" : judged;
  const key = isStale() ? "no_news" : { ok: "healthy", warn: "needs_a_look", bad: "not_healthy" }[state];
  byId("verdict").dataset.state = state;
  write(byId("verdict-text"), word(key));
  patch(byId("reasons"), ...found.map((cause) => make("li", {}, cause)), ...told);
}

function showLights() {
  patch(byId("lights"), ...Object.entries(dict(shown.lights)).map(([key, light]) => {
    const { ok, why: reason } = dict(light);
    const state = ok === true ? "ok" : "bad";
    const lamp = make("span", { class: `lamp ${state}`, "aria-hidden": "true" }, SIGNS[state]);
    const said = make("strong", { class: state }, word(ok === true ? "fine" : "fault"));
    const note = reason ? [make("small", { dir: "auto" }, clean(reason))] : [];
    return make("li", { "data-light": key, "data-ok": ok === true }, lamp, make("span", {}, term("light", key)), said, ...note);
  }));
}

// --- the numbers

function tile(id, value, state = "", note = "") {
  const box = byId(`tile-${id}`);
  box.dataset.state = state;
  box.hidden = false;
  write(byId(id), value);
  if (box.querySelector("small")) write(box.querySelector("small"), note);
}

function showNumbers() {
  const orders = dict(shown.orders);
  const late = amount(orders.oldest_due_seconds);
  if (!isNumber(orders.oldest_due_seconds)) tile("oldest", "–");
  else tile("oldest", late ? duration(late) : word("nothing_late"), late > LATE ? "bad" : late > 60 ? "warn" : "ok");
  const waiting = amount(orders.awaiting_pin) ? say("awaiting_pin", { n: number(orders.awaiting_pin) }) : "";
  tile("open", number(orders.open), "", waiting);
  tile("due", number(orders.due));
  tile("overdue", number(orders.overdue), amount(orders.overdue) ? "warn" : "");
  tile("stuck", number(orders.stuck), amount(orders.stuck) ? "bad" : "");
  showDeliveries(dict(shown.events), dict(shown.webhook));
  byId("tile-reviews").hidden = !amount(shown.reviews);
  if (amount(shown.reviews)) tile("reviews", number(shown.reviews), "warn");
  write(byId("read"), isNumber(orders.read_seconds_ago) ? say("read_ago", { t: duration(orders.read_seconds_ago) }) : "");
  const running = (Date.parse(shown.now) - Date.parse(shown.started_at)) / 1000;
  const version = [clean(shown.version), isNumber(running) ? say("running", { t: duration(running) }) : ""];
  write(byId("version"), version.filter(Boolean).join(" · "));
}

function showDeliveries(events, webhook) {
  const waited = amount(events.oldest_waiting_seconds);
  const dead = amount(webhook.dead);
  byId("tile-events").hidden = !shown.events;
  byId("tile-webhook").hidden = !shown.webhook;
  const age = waited ? say("oldest_of", { t: duration(waited) }) : "";
  if (shown.events) tile("events", number(events.waiting), waited > LATE ? "warn" : "", age);
  const lost = dead ? say("dead", { n: number(dead) }) : "";
  if (shown.webhook) tile("webhook", number(webhook.waiting), dead ? "bad" : "", lost);
}

// --- charts

function groups(rows) {
  return rows.map((row, n) => ({
    label: isNumber(row.up_to) ? say("up_to", { t: duration(row.up_to) }) : say("over", { t: duration(n ? rows[n - 1].up_to : 0) }),
    count: amount(row.count),
  }));
}

/** The open orders by age, and those that are not asked about: all of them together are what is open. */
function ages(orders) {
  const { unknown_status: unknown, ...skipped } = dict(orders.skipped);
  const rest = Object.values(skipped).reduce((sum, count) => sum + amount(count), 0);
  const rows = groups(dicts(orders.by_age));
  return rest ? [...rows, { label: word("skipped"), count: rest }] : rows;
}

/** Horizontal bars with their numbers written beside them. Places are percents, so that the text keeps its size. */
function bars(title, rows) {
  const most = Math.max(1, ...rows.map((row) => row.count));
  const label = `${title}: ${rows.map((row) => `${row.label} ${number(row.count)}`).join(", ")}`;
  const svg = draw("svg", { width: "100%", height: rows.length * 26, role: "img", "aria-label": label });
  const edge = (x) => `${isRtl ? 100 - x : x}%`;
  rows.forEach((row, n) => {
    const bar = (width, kind) => draw("rect", {
      x: `${isRtl ? 60 - width : 40}%`, y: n * 26 + 6, width: `${width}%`, height: 14, rx: 3, class: kind,
    });
    svg.append(
      draw("text", { x: edge(0), y: n * 26 + 18, class: "label" }, row.label), bar(38, "track"),
      bar((row.count / most) * 38, "bar"), draw("text", { x: edge(80), y: n * 26 + 18 }, number(row.count)),
    );
  });
  return svg;
}

/** A line of what was open, over bars of what ended, by the minute; the oldest stands where reading starts. */
function historyChart(minutes) {
  const first = minutes[0].time;
  const span = minutes.at(-1).time - first;
  const most = Math.max(1, ...minutes.map((minute) => amount(minute.open)));
  const busiest = Math.max(1, ...minutes.map((minute) => amount(minute.ended)));
  const place = (minute) => ((isRtl ? minutes.at(-1).time - minute.time : minute.time - first) / span) * 300;
  const points = minutes.map((minute) => `${place(minute).toFixed(1)},${(98 - (amount(minute.open) / most) * 92).toFixed(1)}`).join(" ");
  const ended = minutes.reduce((sum, minute) => sum + amount(minute.ended), 0);
  const label = say("history_label", {
    m: number(minutes.length), now: number(dict(shown.orders).open), most: number(most), ended: number(ended),
  });
  const svg = draw("svg", { viewBox: "0 0 300 100", preserveAspectRatio: "none", class: "history", role: "img", "aria-label": label });
  for (const minute of minutes) {
    const height = (amount(minute.ended) / busiest) * 40;
    svg.append(draw("rect", { class: "ended", x: place(minute) - 1.5, y: 100 - height, width: 3, height }));
  }
  svg.append(draw("polyline", { class: "line", points }));
  const axis = make("p", { class: "axis" }, make("span", {}, time(first)), make("span", {}, time(minutes.at(-1).time)));
  return [svg, axis, make("p", { class: "note" }, `${label} ${word("history_legend")}`)];
}

/** How many of a package's orders have ended by which age, oldest age last, with the planned checks as lines across it. */
function timingChart(package_) {
  const points = dicts(package_.curve).filter((point) => isNumber(point.age) && isNumber(point.share));
  if (points.length < 2) return "–";
  const [first, last] = [Math.log(points[0].age), Math.log(points.at(-1).age)];
  const place = (age) => {
    const x = Math.min(1, Math.max(0, (Math.log(age) - first) / (last - first))) * 200;
    return (isRtl ? 200 - x : x).toFixed(1);
  };
  const checks = (Array.isArray(package_.checks) ? package_.checks : []).filter(isNumber);
  const label = say("timing_label", { half: duration(package_.half_seconds), n: number(checks.length) });
  const svg = draw("svg", { viewBox: "0 0 200 40", preserveAspectRatio: "none", class: "curve", role: "img", "aria-label": label });
  for (const age of checks) svg.append(draw("line", { class: "check", x1: place(age), x2: place(age), y1: 2, y2: 40 }));
  const line = points.map((point) => `${place(point.age)},${(38 - point.share * 34).toFixed(1)}`).join(" ");
  svg.append(draw("polyline", { class: "line", points: line }));
  return svg;
}

function showTiming() {
  const section = byId("timing-section");
  section.hidden = !Array.isArray(shown.timing);
  if (section.hidden) return;
  table("timing", ["package", "account", "ends_seen", "half_by", "curve"], dicts(shown.timing).map((one) => ({
    key: ["data-package", String(one.package)],
    cells: [
      code(one.package, "code id"), name(one.account), number(one.orders),
      isNumber(one.half_seconds) ? duration(one.half_seconds) : "–", timingChart(one),
    ],
  })), "no_timing");
}

function showMembers() {
  const section = byId("members-section");
  section.hidden = !shown.cluster;
  if (section.hidden) return;
  const cluster = dict(shown.cluster);
  table("members", ["member", "its_accounts", "role"], dicts(cluster.members).map((one) => ({
    key: ["data-member", String(one.name)],
    cells: [
      name(one.name), Array.isArray(one.accounts) && one.accounts.length ? clean(one.accounts.join(", ")) : "–",
      [one.name === cluster.me && word("role_me"), one.leads && word("role_leads")].filter(Boolean).join(", ") || "–",
    ],
  })), "no_members");
}

function showCharts() {
  const orders = dict(shown.orders);
  const found = dict(shown.detection_seconds);
  patch(byId("ages"), orders.open === 0 ? empty("nothing_open") : bars(word("by_age"), ages(orders)));
  const isKnown = isNumber(found.p50);
  write(byId("quantiles"), isKnown ? say("quantiles", { p50: duration(found.p50), p95: duration(found.p95) }) : "");
  patch(byId("delays"), isKnown ? bars(word("detection"), groups(dicts(found.buckets))) : empty("no_ends"));
  const minutes = dicts(shown.history).map((minute) => ({ ...minute, time: Date.parse(minute.at) }))
    .filter((minute) => isNumber(minute.time));
  const isLine = minutes.length > 1 && minutes.at(-1).time > minutes[0].time;
  patch(byId("history"), ...(isLine ? historyChart(minutes) : [empty("no_history")]));
}

// --- tables

function textOf(row) {
  const cells = row.cells.map((cell) => (cell instanceof Node ? cell.textContent : String(cell)));
  return fold([...cells, row.key[1], row.state, clean(row.referans)].join("\n"));
}

/**
 * Fill a table; a row is {key: [attribute, value], state, referans, cells}, its first cell the row's heading. There may be more
 * than its rows: all is how many.
 */
function table(id, heads, rows, nothing, all = rows.length) {
  const { caption, tHead, tBodies } = byId(id);
  const wanted = id === "found" ? "" : fold(byId("search").value);
  const kept = rows.filter((row) => !wanted || textOf(row).includes(wanted));
  if (wanted) matches += kept.length;
  const few = kept.slice(0, expanded.has(id) ? kept.length : small.matches ? 6 : 20);
  const none = make("td", { class: "empty", colspan: heads.length, role: "cell" }, word(rows.length ? "nothing_found" : nothing));
  const title = make("span", { class: "unseen" }, `${word(id)}: `);
  patch(caption, title, make("span", {}, say("shown_of", { n: number(few.length), all: number(all) })));
  patch(tHead, make("tr", { role: "row" }, ...heads.map((head) => make("th", { scope: "col", role: "columnheader" }, word(head)))));
  patch(tBodies[0], ...(few.length ? few.map((row) => rowOf(row, heads)) : [make("tr", { role: "row" }, none)]));
  caption.hidden = !rows.length;
  tHead.hidden = !few.length;
  showMore(id, kept.length - few.length);
}

function rowOf({ key: [attribute, value], cells }, heads) {
  return make("tr", { role: "row", [attribute]: value ?? "" }, ...cells.map((cell, n) => cellOf(cell, heads[n], n === 0)));
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
  write(button, say("show_all", { n: number(rest) }));
  button.onclick = () => { expanded.add(id); showTables(); };
}

function stateOf(account) {
  if (shown.cluster && (!account.owner || account.owner !== dict(shown.cluster).me)) return "elsewhere";
  if (account.paused) return "paused";
  return account.open === true ? "open" : "closed";
}

function gate(account) {
  const state = stateOf(account);
  if (state === "elsewhere") {
    return make("span", { class: "gate" }, account.owner ? note(say("asked_by", { name: clean(account.owner) })) : mark("warn", word("asked_by_nobody")));
  }
  const kind = { paused: "warn", open: "ok", closed: "bad" }[state];
  const cell = make("span", { class: "gate" }, mark(kind, word(`gate_${state}`)));
  if (state === "paused") cell.append(...pause(dict(account.paused)));
  if (amount(account.held)) cell.append(" ", mark("warn", say("gate_held", { n: number(account.held) })));
  if (account.ends_paused) cell.append(" ", mark("warn", word("gate_ends_paused")), ...pause(dict(account.ends_paused)));
  if (state === "closed" && account.reason) cell.append(" ", why(account.reason));
  if (isNumber(account.next_probe_seconds)) cell.append(note(say("next_probe", { t: duration(account.next_probe_seconds) })));
  return cell;
}

function pause({ reason, since, until, by }) {
  const parts = [[since, "paused_since", fromNow], [until, "paused_until", time], [by, "paused_by", name]];
  const told = parts.filter(([value]) => value).map(([value, key, show]) => note(`${word(key)} `, show(value)));
  return [" ", name(reason), ...told];
}

function rate(account) {
  const share = Math.min(1, amount(account.calls_per_second) / (amount(account.limit_per_second) || 1));
  const meter = draw("svg", { class: "meter", width: "100%", height: 5, "aria-hidden": "true" });
  meter.append(
    draw("rect", { class: "track", width: "100%", height: 5, rx: 2 }),
    draw("rect", { class: "bar", x: `${isRtl ? 100 - share * 100 : 0}%`, width: `${share * 100}%`, height: 5, rx: 2 }),
  );
  return make("span", { class: "rate" }, say("of_limit", { n: number(account.calls_per_second), limit: number(account.limit_per_second) }), meter);
}

/** How many orders an account has, and below it how many more wait for their PIN, and how many its provider does not know. */
function ordersOf(account) {
  const cell = make("span", {}, number(account.orders));
  if (account.awaiting_pin) cell.append(note(say("awaiting_pin", { n: number(account.awaiting_pin) })));
  if (account.odd_orders) cell.append(note(say("odd_orders", { n: number(account.odd_orders) })));
  return cell;
}

function showAccounts() {
  const accounts = dicts(shown.accounts);
  const isBalance = accounts.some((account) => account.balance);
  const heads = ["account", "gate", "orders_open", "due", "in_flight", "rate", "last_error", "last_answer"];
  table("accounts", isBalance ? [...heads, "balance"] : heads, accounts.map((account) => ({
    key: ["data-account", account.name], state: stateOf(account),
    cells: [
      name(account.name), gate(account), ordersOf(account), number(account.due), number(account.in_flight),
      rate(account), failure(account.last_error, account.said), fromNow(account.last_answer_at),
      ...(isBalance ? [clean(account.balance) || "–"] : []),
    ],
  })), "no_accounts");
}

function showLists() {
  table("problems", ["order", "problem", "rule", "account", "age"], dicts(shown.problems).map((problem) => ({
    key: ["data-order", problem.order_id], referans: problem.referans, state: String(problem.kind),
    cells: [
      code(problem.order_id, "code id"), mark(problem.kind === "stuck" ? "bad" : "warn", term("kind", problem.kind)),
      why(problem.why), name(problem.account), fromNow(problem.since),
    ],
  })), "no_problems", amount(shown.all_problems));
  const waiting = dicts(shown.oldest_reviews);
  byId("waiting-section").hidden = !waiting.length;
  table("waiting", ["order", "rule", "account", "waits"], waiting.map((review) => ({
    key: ["data-order", review.order_id], state: String(review.kind),
    cells: [code(review.order_id, "code id"), why(review.kind), name(review.account), fromNow(review.since)],
  })), "no_problems", amount(shown.reviews));
  table("recent", ["order", "change", "pin", "account", "at"], dicts(shown.recent).map((recent) => ({
    key: ["data-order", recent.order_id], referans: recent.referans,
    cells: [
      code(recent.order_id, "code id"), make("bdi", { dir: "ltr" }, code(recent.from), " → ", code(recent.to)),
      recent.has_pin ? word("with_pin") : "–", name(recent.account), time(recent.at),
    ],
  })), "no_changes");
  table("next", ["order", "account", "at"], dicts(shown.next).map((check) => ({
    key: ["data-order", check.order_id], referans: check.referans, cells: [code(check.order_id, "code id"), name(check.account), fromNow(check.at)],
  })), "no_next");
  table("failures", ["at", "account", "outcome", "rule"], dicts(shown.failures).map((failed) => ({
    key: ["data-account", failed.account], state: String(failed.outcome),
    cells: [time(failed.at), name(failed.account), term("outcome", failed.outcome), failure(failed.why, failed.said)],
  })), "no_failures");
}

function showSkipped() {
  const skipped = Object.entries(dict(dict(shown.orders).skipped)).filter(([, count]) => amount(count));
  const told = skipped.map(([reason, count]) => `${number(count)} × ${term("why", reason)}`);
  write(byId("skipped"), told.length ? `${word("skipped")}: ${told.join(" ")}` : "");
}

/** What the search has found in the database: orders that are in none of the lists. */
function showFound() {
  const section = byId("found-section");
  section.hidden = !found;
  if (section.hidden) return;
  const left = list(found.not_searched).map(clean).join(", ");
  const notes = [found.problem ? say("not_found_out", { why: clean(found.problem) }) : "",
    found.more ? word("more_found") : "", left ? say("not_searched", { names: left }) : ""];
  write(byId("found-note"), notes.filter(Boolean).join(" "));
  table("found", ["order", "status", "account", "age", "next_check", "rule"], dicts(found.orders).map((order) => ({
    key: ["data-order", order.order_id],
    cells: [
      code(order.order_id, "code id"), code(order.status), name(order.account), fromNow(order.sent_at),
      fromNow(order.next_at), order.why ? why(order.why) : "–",
    ],
  })), "nothing_in_database");
}

/** Look into the database for what no list has: once the typing has paused, or at once where somebody presses Enter. */
function seek(isAtOnce) {
  clearTimeout(seeking);
  const typed = byId("search").value.trim();
  found = null;
  showFound();
  const isWanted = isAtOnce ? typed !== "" : typed.length >= SHORTEST_NAME && !matches;
  if (isWanted) seeking = setTimeout(() => find(typed), isAtOnce ? 0 : SEEK_AFTER);
}

async function find(typed) {
  try {
    const answer = await fetch(`api/find?q=${encodeURIComponent(typed)}`, { cache: "no-store", signal: AbortSignal.timeout(POLL_EVERY) });
    if (byId("search").value.trim() !== typed) return;
    if (answer.status === 429) seeking = setTimeout(() => find(typed), 1000);
    else if (answer.ok) found = dict(await answer.json());
    showFound();
  } catch (error) {
    console.info("no answer:", error.name);
  }
}

function showTables() {
  matches = 0;
  showAccounts();
  showMembers();
  showTiming();
  showSkipped();
  showLists();
}

// --- life

const secondsOld = () => Math.max(0, Math.round((Date.now() - (receivedAt ?? openedAt)) / 1000));
const isStale = () => secondsOld() > STALE_AFTER;

function receive(status) {
  shown = dict(status);
  receivedAt = Date.now();
  for (const part of [showFreshness, showLights, showNumbers, showCharts, showTables]) part();
}

/** Say how old the data is; what is old, or never came, is not shown as well. */
function showFreshness() {
  const key = isStale() ? "stale" : shown ? "fresh" : "connecting";
  write(byId("freshness"), say(key, { t: duration(secondsOld()) }));
  byId("freshness").dataset.stale = String(isStale());
  if (shown || isStale()) showVerdict(dict(shown));
}

async function poll() {
  try {
    const answer = await fetch("api/status", { cache: "no-store", signal: AbortSignal.timeout(POLL_EVERY) });
    if (answer.ok) receive(await answer.json());
  } catch (error) {
    console.info("no answer:", error.name);
  }
}

function listen() {
  stream?.close();
  stream = new EventSource("api/stream");
  triedAt = Date.now();
  stream.addEventListener("status", (event) => {
    streamedAt = Date.now();
    receive(JSON.parse(event.data));
  });
}

/** Where the stream says nothing, ask; and where it has ended or hangs, open it anew. */
function keepUp() {
  const now = Date.now();
  if (document.hidden || now - streamedAt < POLL_EVERY) return;
  poll();
  const hangs = Math.min(now - streamedAt, now - triedAt) > STALE_AFTER * 1000;
  if (hangs || stream.readyState === EventSource.CLOSED) listen();
}

/** A hidden page leaves its place at the stream to others. */
function followVisibility() {
  if (document.hidden) stream?.close();
  else listen();
}

for (const place of document.querySelectorAll("[data-word]")) place.textContent = word(place.dataset.word);
for (const place of document.querySelectorAll("[data-label]")) place.setAttribute("aria-label", word(place.dataset.label));
document.querySelector(`nav a[lang="${lang}"]`)?.setAttribute("aria-current", "true");
document.addEventListener("visibilitychange", followVisibility);
byId("search").addEventListener("input", () => {
  if (!shown) return;
  showTables();
  seek(false);
});
byId("search").addEventListener("keydown", (event) => { if (event.key === "Enter") seek(true); });
setInterval(showFreshness, 1000);
setInterval(keepUp, POLL_EVERY);
followVisibility();
poll();
