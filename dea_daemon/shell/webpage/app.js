// The page of a running daemon. Whatever comes from a venue is shown with textContent only.
"use strict";

const KEPT = 3600, KEPT_ROWS = 500, SHOWN_ROWS = 200, SILENT_MS = 5000;
const MODES = ["normal", "reduce_only", "flattening", "halted", "paused"];
const CAUTION = { normal: "good", reduce_only: "warn", flattening: "warn", paused: "warn", halted: "bad" };
const BLUE = "#58a6ff", AMBER = "#e3b341", RED = "#f85149", GREY = "#808b99";

const $ = (id) => document.getElementById(id);
let past, status = null, lastId = "", heardMs = 0, source = null, asked = 0;
const changed = { points: false, decisions: false, fills: false };

function forget() {
  past = { run: null, points: new Map(), decisions: new Map(), fills: new Map() };
  if (window.Plotly) document.querySelectorAll(".chart").forEach((chart) => Plotly.purge(chart));
  $("exposures").replaceChildren();
  changed.points = changed.decisions = changed.fills = true;
}

function keep(kind, key, item, most) {  // a number already there is the same thing told twice
  const items = past[kind];
  items.set(key, item);
  if (items.size > most) items.delete(items.keys().next().value);
  changed[kind] = true;
}

// --- the stream ------------------------------------------------------------------------------------

function connect() {
  source = new EventSource("/events" + (lastId ? "?after=" + encodeURIComponent(lastId) : ""));
  const on = (name, then) => source.addEventListener(name, (event) => {
    if (event.lastEventId) lastId = event.lastEventId;
    then(JSON.parse(event.data));
  });
  on("status", hear);
  on("point", (point) => keep("points", point.seq, point, KEPT));
  on("decision", (decision) => keep("decisions", decision.seq, decision, KEPT_ROWS));
  on("fill", (fill) => keep("fills", fill.n, fill, KEPT_ROWS));
  source.onerror = () => {
    lose("connection lost, trying again");
    if (source.readyState !== EventSource.CLOSED) return;  // the browser tries by itself
    setTimeout(connect, 2000);
  };
}

function hear(news) {
  if (past.run !== null && past.run !== news.run_id) forget();  // the daemon was started anew
  past.run = news.run_id;
  status = news;
  heardMs = performance.now();
  document.body.classList.remove("lost");
  $("link").textContent = "live";
}

function lose(why) {
  document.body.classList.add("lost");
  $("link").textContent = why;
}

// --- small things ------------------------------------------------------------------------------------

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== "") element.textContent = text;
  return element;
}

const known = (x) => typeof x === "number" && Number.isFinite(x);
const number = (x, digits = 2) =>
  known(x) ? x.toLocaleString("en-GB", { maximumFractionDigits: digits, minimumFractionDigits: 0 }) : "–";
const usd = (x) => (known(x) ? (x < 0 ? "−$" : "$") + number(Math.abs(x), Math.abs(x) < 100 ? 2 : 0) : "–");
const percent = (x, digits = 1) => (known(x) ? number(100 * x, digits) + " %" : "–");
const iso = (ns) => new Date(ns / 1e6).toISOString();
const milliseconds = (us) => (known(us) ? number(us / 1000, 1) + " ms" : "–");
const clock = (ns) => iso(ns).slice(11, 19);
const word = (x) => String(x ?? "").replaceAll("_", " ");
const mode = (x) => (typeof x === "number" ? MODES[x] ?? String(x) : x);
const age = (s) => (!known(s) ? "–" : s < 120 ? number(s, 1) + " s" : number(s / 60, 0) + " min");

// columns: [title, value(row) -> text or element, class]
function table(into, columns, rows, { empty = "none", row = null } = {}) {
  if (!rows.length) return into.replaceChildren(make("div", "empty", empty));
  const [whole, head, body] = [make("table"), make("thead"), make("tbody")];
  const titles = head.appendChild(make("tr"));
  for (const [title, , className] of columns) titles.append(make("th", className === "num" ? "num" : "", title));
  for (const item of rows) {
    const line = body.appendChild(make("tr"));
    for (const [, value, className] of columns) {
      const shown = value(item);
      const cell = line.appendChild(make("td", typeof className === "function" ? className(item) : className));
      if (shown instanceof Node) cell.append(shown);
      else cell.textContent = shown;
    }
    if (row) row(line, item);
  }
  whole.append(head, body);
  into.replaceChildren(whole);
}

const SIDE = ["side", (o) => o.side, (o) => o.side];
const FACTORS = [
  ["factor", (f) => f.factor], ["price", (f) => number(f.price), "num"],
  ["volatility", (f) => percent(f.annual_vol), "num"], ["actual", (f) => usd(f.actual_usd), "num"],
  ["target", (f) => usd(f.target_usd), "num"], ["band", (f) => (known(f.band_usd) ? "± " + usd(f.band_usd) : "–"), "num"],
];
const GREEKS = [
  ["underlying", (g) => g.underlying], ["gamma per 1 %", (g) => usd(g.gamma_usd_1pct), "num"],
  ["vega per point", (g) => usd(g.vega_usd_1pt), "num"], ["theta per day", (g) => usd(g.theta_usd_day), "num"],
  ["carry per day", (g) => usd(g.carry_usd_day), "num"],
  ["vega by expiry", (g) => Object.entries(g.vega_by_expiry).map(([days, x]) => `${days} ${usd(x)}`).join(", "), "wrap dim"],
];
const SAYS = [
  ["underlying", (f) => f.underlying], ["forecaster", (f) => f.name], ["says", (f) => percent(f.expected_return, 2), "num"],
  ["±", (f) => percent(f.deviation, 2), "num"], ["weight", (f) => number(f.weight), "num"],
];
const LIMITS = [
  ["limit", (l) => word(l.limit) + (l.subject ? " " + l.subject : "")], ["", (l) => bar(share(l)), "grow"],
  ["used", (l) => figure(l, l.used), "num"], ["allowed", (l) => figure(l, l.allowed), "num"],
];
// As shell/limit_text.py: parts of a whole as percent; losses are in USD, or parts of equity.
const FRACTIONS = new Set(["drawdown", "daily_loss", "margin", "liquidation", "depeg"]);
const LOSSES = new Set(["scenario", "stress", "var", "es"]);
const figure = (l, x) =>
  FRACTIONS.has(l.limit) || (LOSSES.has(l.limit) && Math.abs(l.allowed) < 10) ? percent(x, 2) : number(x);
const CLIPS = [
  ["limit", (c) => word(c.limit)], ["subject", (c) => c.subject], ["wanted", (c) => number(c.wanted), "num"],
  ["allowed", (c) => number(c.allowed), "num"], ["why", (c) => c.why, "wrap"],
];
const SENT = [
  ["", (o) => o.action], ["contract", (o) => o.instrument], SIDE,
  ["lots", (o) => (o.action === "create" ? number(o.lots) : ""), "num"], ["price", (o) => o.price, "num"],
  ["size", (o) => (o.action === "create" ? usd(o.notional_usd) : ""), "num"], ["why", (o) => word(o.why), "wrap"],
];
const share = (l) => (known(l.used) && l.allowed > 0 ? Math.abs(l.used) / l.allowed : l.used ? 1.01 : 0);

function bar(used) {
  const [outer, inner] = [make("div", "bar"), make("i", used > 1 ? "over" : used > 0.8 ? "high" : "")];
  inner.style.width = Math.min(100 * used, 100) + "%";
  outer.append(inner);
  outer.title = percent(used);
  return outer;
}

// --- now ---------------------------------------------------------------------------------------------

function badge(id, text, className) {
  $(id).textContent = text;
  $(id).className = "badge " + className;
}

const shut = (s) => [
  s.contracts_closed ? `${number(s.contracts_closed)} contracts closed by the venue` : "",
  s.contracts_regridded ? `${number(s.contracts_regridded)} contracts with other lots or ticks` : "",
];

function showStatus(s) {
  badge("mode", word(s.mode), CAUTION[s.mode] ?? "");
  badge("armed", s.armed ? "armed" : "observing", s.armed ? "good" : "warn");
  badge("health", s.healthy ? "healthy" : "unhealthy", s.healthy ? "good" : "bad");
  $("why").textContent = [s.mode_why, ...s.unhealthy, s.draining ? "draining" : "", ...shut(s)].filter(Boolean).join(" · ");
  const tiles = [
    ["equity", usd(s.equity_usd)], ["drawdown", percent(s.drawdown, 2)], ["last decision", age(s.decision_age_s)],
    ["decisions", number(s.counts.decisions)], ["orders sent", number(s.counts.orders_sent)],
    ["fills", number(s.counts.fills)], ["fees", usd(s.fees_usd)], ["turnover in 1 h", usd(s.turnover_hour_usd)],
    ["event to order, p99", milliseconds(s.latency?.event_to_order_us?.p99)],
    ["limits breached", number(s.counts.limits_breached)],
  ];
  $("tiles").replaceChildren(...tiles.map(([name, value]) => {
    const tile = make("div");
    tile.append(make("b", "", value), make("span", "", name));
    return tile;
  }));
  table($("limits"), LIMITS, s.limits, { empty: "none yet" });
  showOptions(s);
  showLearning(s);
  showMarkets(s);
  $("foot").textContent = `dea_daemon ${s.version} · run ${s.run_id} · pid ${s.pid} · up ${age(s.uptime_s)} · ` +
    `times in UTC · ${s.config ?? "no configuration file"}`;
}

const curved = (greeks) => Object.entries(greeks ?? {}).map(([underlying, g]) => ({ underlying, ...g }))
  .filter((g) => g.gamma_usd_1pct !== 0 || g.vega_usd_1pt !== 0 || g.theta_usd_day !== 0);
const left = (days) => (!known(days) ? "–" : days >= 2 ? number(days, 1) + " d" : number(24 * days, 1) + " h");

function showOptions(s) {
  const counts = s.option_counts ?? {};
  $("optional").hidden = !counts.listed && !s.options?.length;
  if ($("optional").hidden) return;
  $("rests").textContent = `${number(counts.listed)} listed, ${number(counts.modelled)} modelled, ` +
    `${number(counts.greeks_off)} whose Greeks the venue contradicts`;
  table($("greeks"), GREEKS, curved(s.greeks), { empty: "none held" });
  table($("options"), [
    ["contract", (o) => o.instrument], ["lots", (o) => number(o.position_lots), "num"], ["iv", (o) => percent(o.iv), "num"],
    ["from", (o) => word(o.iv_source), "dim"], ["delta", (o) => usd(o.delta_usd), "num"],
    ["gamma per 1 %", (o) => usd(o.gamma_usd_1pct), "num"], ["vega per point", (o) => usd(o.vega_usd_1pt), "num"],
    ["theta per day", (o) => usd(o.theta_usd_day), "num"], ["expires in", (o) => left(o.days), "num"],
  ], s.options ?? [], {
    empty: "none held",
    row: (line, o) => { line.classList.toggle("stale", o.modelled); line.classList.toggle("off", o.greeks_off); },
  });
}

const STANDING = { traded: "buy", proposed: "amber-text", demoted: "bad-text" };

function showLearning(s) {
  const [contenders, slow] = [s.contenders ?? [], s.slow_factors ?? []];
  $("learning").hidden = !contenders.length && !slow.length;
  $("trial").hidden = !contenders.length;
  $("factors").hidden = !slow.length;
  const scores = (c) => s.forecasters.filter((f) => f.name === c.name && known(f.r_squared))
    .reduce((best, f) => (best.r_squared >= f.r_squared ? best : f), {});
  table($("forecasters"), [
    ["forecaster", (c) => c.name], ["state", (c) => c.state, (c) => STANDING[c.state] ?? "dim"],
    ["weight", (c) => number(c.weight), "num"], ["R²", (c) => percent(scores(c).r_squared, 2), "num"],
    ["t", (c) => number(scores(c).t, 1), "num"], ["p", (c) => number(c.p, 3), "num"],
    ["drift", (c) => number(c.drift), "num"], ["rounds", (c) => number(c.rounds), "num"],
  ], contenders, { row: (line, c) => { line.title = c.why; } });
  table($("slow"), [
    ["factor", (f) => f.name], ["z", (f) => number(f.z), "num"], ["days old", (f) => number(f.age_days, 1), "num"],
    ["", (f) => (f.valid ? "valid" : f.why), (f) => (f.valid ? "dim" : "bad-text wrap")],
  ], slow, { row: (line, f) => line.classList.toggle("stale", !f.valid) });
}

function showMarkets(s) {
  const faint = (line, x) => line.classList.toggle("stale", !x);
  table($("instruments"), [
    ["contract", (i) => i.instrument], ["account", (i) => i.account, "dim"], ["bid", (i) => number(i.bid, 8), "num"],
    ["ask", (i) => number(i.ask, 8), "num"], ["mark", (i) => number(i.mark, 4), "num"],
    ["index", (i) => number(i.index, 4), "num"], ["position, lots", (i) => number(i.position_lots), "num"],
    ["notional", (i) => usd(i.notional_usd), "num"], ["", (i) => (i.fresh ? "fresh" : "stale"), "num"],
  ], s.instruments, { row: (line, i) => faint(line, i.fresh) });
  table($("orders"), [
    ["contract", (o) => o.instrument], SIDE, ["filled / lots", (o) => `${number(o.filled_lots)} / ${number(o.lots)}`, "num"],
    ["price", (o) => o.price, "num"], ["state", (o) => word(o.state)], ["age", (o) => age(o.age_s), "num"],
  ], s.orders);
  table($("feeds"), [
    ["feed", (f) => f.feed], ["age", (f) => age(f.age_s), "num"], ["per s", (f) => number(f.rate_per_s, 0), "num"],
    ["messages", (f) => number(f.messages, 0), "num"], ["connects", (f) => number(f.connects), "num"],
    ["gaps", (f) => number(f.gaps), "num"], ["offset", (f) => known(f.offset_ms) ? number(f.offset_ms, 1) + " ms" : "–", "num"],
    ["", (f) => (f.ready ? "ready" : f.last_error || "not connected"), (f) => (f.ready ? "" : "bad-text wrap")],
  ], s.feeds, { row: (line, f) => faint(line, f.ready) });
  const time = ["time", (x) => clock(x.utc_ns), "dim"];
  table($("sent"), [time, ...SENT], [...s.recent_orders].reverse(), { empty: "none yet" });
}

function showFills() {
  table($("fills"), [
    ["time", (f) => clock(f.utc_ns), "dim"], ["contract", (f) => f.instrument], SIDE, ["lots", (f) => number(f.lots), "num"],
    ["price", (f) => number(Number(f.price), 8), "num"], ["fee", (f) => usd(f.fee_usd), "num"],
    ["", (f) => (f.maker ? "maker" : "taker"), "dim"], ["position", (f) => number(f.position_lots), "num"],
  ], newest(past.fills), { empty: "none yet" });
}

const newest = (items) => [...items.values()].reverse().slice(0, SHOWN_ROWS);

// --- charts --------------------------------------------------------------------------------------------

function draw(into, traces, more = {}) {
  const axis = { gridcolor: "#222933", zerolinecolor: "#394350", linecolor: "#262d37" };
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: GREY, size: 11 }, uirevision: "same",
    margin: { l: 62, r: 14, t: 6, b: 38 }, hovermode: "x unified", hoverlabel: { bgcolor: "#0e1116" },
    legend: { orientation: "h", y: 1.12, x: 1, xanchor: "right" }, ...more,
  };
  layout.xaxis = { ...axis, type: "date", ...more.xaxis };
  layout.yaxis = { ...axis, tickformat: "~s", ...more.yaxis };
  Plotly.react(into, traces, layout, { displayModeBar: false });
}

const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) if (target.data) Plotly.Plots.resize(target);
});

const line = (x, y, name, color, more = {}) =>
  ({ x, y, name, type: "scatter", mode: "lines", line: { color, width: 1.6 }, ...more });

function showCharts() {
  if (!window.Plotly || document.hidden) return false;
  const points = [...past.points.values()];
  const x = points.map((p) => iso(p.utc_ns));
  document.body.dataset.points = points.length;
  document.body.dataset.run = past.run ?? "";
  if (!points.length) return true;  // axes without a line say nothing
  draw($("equity"), [
    line(x, points.map((p) => (known(p.drawdown) ? -p.drawdown : null)), "drawdown", RED,
      { yaxis: "y2", fill: "tozeroy", fillcolor: "rgba(248,81,73,.14)", line: { color: RED, width: 0.8 } }),
    line(x, points.map((p) => p.equity_usd), "equity", BLUE),
  ], {
    margin: { l: 70, r: 62, t: 6, b: 38 }, yaxis: { tickformat: ",.0f", tickprefix: "$" },
    yaxis2: { overlaying: "y", side: "right", tickmode: "auto", tickformat: ".3~%", rangemode: "tozero", showgrid: false, zeroline: false },
  });
  const names = new Set(points.flatMap((p) => Object.keys(p.factors)));
  names.forEach(factorChart);  // all cards first: each takes its width from the others
  for (const name of names) drawFactor(name, x, points.map((p) => p.factors[name] ?? [null, null, null]));
  return true;
}

function factorChart(name) {
  let card = [...$("exposures").children].find((c) => c.dataset.factor === name);
  if (!card) {
    card = $("exposures").appendChild(make("article"));
    card.dataset.factor = name;
    card.append(make("h2", "", name.replace("delta:", "") + " exposure against target"), make("div", "chart"));
    sizes.observe(card.lastChild);
  }
  return card.lastChild;
}

function drawFactor(name, x, values) {
  const edge = (sign) => values.map(([, target, band]) => (known(target) && known(band) ? target + sign * band : null));
  const bare = { showlegend: false, hoverinfo: "skip", line: { width: 0, shape: "hv" } };
  draw(factorChart(name), [
    line(x, edge(-1), "", GREY, bare),
    line(x, edge(1), "band", GREY, { ...bare, showlegend: true, fill: "tonexty", fillcolor: "rgba(227,179,65,.16)" }),
    line(x, values.map((v) => v[1]), "target", AMBER, { line: { color: AMBER, width: 1.2, dash: "dot", shape: "hv" } }),
    line(x, values.map((v) => v[0]), "actual", BLUE),
  ], { yaxis: { tickprefix: "$" } });
}

// --- decisions -------------------------------------------------------------------------------------------

function showDecisions() {
  const sent = (d) => d.orders.map((o) => `${o.action} ${o.side} ${o.instrument}`.replace("  ", " ")).join(", ");
  const clipped = (d) => d.clips.map((c) => `${word(c.limit)} ${c.subject}`).join(", ");
  table($("decisions"), [
    ["time", (d) => clock(d.utc_ns), "dim"], ["decision", (d) => number(d.seq), "num"], ["cause", (d) => word(d.cause)],
    ["mode", (d) => word(mode(d.mode))], ["sent", sent, "wrap"], ["clipped by", clipped, "wrap"],
    ["noted", (d) => d.notes.join(", "), "wrap dim"],
  ], newest(past.decisions), {
    empty: "none that acted yet",
    row: (row, d) => {
      row.className = "pick";
      row.tabIndex = 0;
      row.dataset.seq = d.seq;
      row.onclick = () => open(d.seq);
      row.onkeydown = (event) => event.key === "Enter" && open(d.seq);
    },
  });
}

async function open(seq) {
  const turn = ++asked;
  const into = $("record");
  into.replaceChildren(make("h2", "", `Decision ${number(seq)}`), make("div", "empty", "asking"));
  if (!$("detail").open) $("detail").showModal();
  let record = null, why = "";
  try {
    const reply = await fetch("/decision?seq=" + seq);
    if (reply.ok) record = await reply.json();
    else why = await reply.text();
  } catch {
    why = "connection lost";
  }
  if (turn !== asked) return;  // another was clicked meanwhile
  if (record) tellDecision(into, record);
  else into.lastChild.textContent = why;
}

function tellDecision(into, d) {
  const part = (title, columns, rows, empty) => {
    const body = make("div", "scroll");
    table(body, columns, rows, { empty });
    into.append(make("h3", "", title), body);
  };
  const what = `${iso(d.utc_ns).replace("T", " ").replace("Z", " UTC")} · cause ${word(d.cause)} · ` +
    `${word(mode(d.mode))} · ${d.armed ? "armed" : "observing"} · equity ${usd(d.equity_usd)}`;
  into.replaceChildren(make("h2", "", `Decision ${number(d.seq)}`), make("div", "dim", what));
  part("Seen and wanted", FACTORS, d.factors.filter((f) => f.factor.startsWith("delta:")), "no factors");
  const others = d.factors.filter((f) => !f.factor.startsWith("delta:"));
  if (others.some((f) => /^(gamma|vega):/.test(f.factor))) {
    part("Options", [["factor", (f) => f.factor], ["held", (f) => usd(f.actual_usd), "num"]], others, "none");
  }
  if (d.forecasters?.length) {
    part("Forecasters with weight", SAYS, d.forecasters.filter((f) => f.weight && !f.name.startsWith("zero")), "none");
  }
  part("Clipped, and why", CLIPS, d.clips, "nothing");
  part("Sent", SENT, d.orders, "nothing");
  part("Limits used", LIMITS, d.uses, "none");
  if (d.notes.length) into.append(make("h3", "", "Noted"), make("div", "", d.notes.join(", ")));
}

// --- a few times a second, what changed -------------------------------------------------------------------

function show() {
  if (status) { showStatus(status); status = null; }
  if (changed.fills) { showFills(); changed.fills = false; }
  if (changed.decisions) { showDecisions(); changed.decisions = false; }
  if (changed.points && showCharts()) changed.points = false;
  if (heardMs && performance.now() - heardMs > SILENT_MS) lose("connection lost, nothing heard");
}

$("close").onclick = () => $("detail").close();
sizes.observe($("equity"));
forget();
connect();
setInterval(show, 250);
