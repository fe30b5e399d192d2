// The volatility surfaces that options are valued from: asked for every two seconds while any is followed.
"use strict";

const SURFACE_MS = 2000;
const GREEN = "#3fb950";
const RESTS_ON = {
  fitted: "its quotes", shaped: "five quotes", leaning: "few quotes", lifted: "one quote", between: "no quote",
};
const DAYS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
let surfaces = [], chosen = "";

const points = (x) => (known(x) ? (x < 0 ? "−" : "+") + Math.abs(100 * x).toFixed(1) : "–");
const level = (x) => (known(x) ? (100 * x).toFixed(1) + " %" : "–");
const TERMS = [
  ["ATM", (t) => level(t.atm), "num"], ["risk reversal", (t) => points(t.risk_reversal), "num"],
  ["butterfly", (t) => points(t.butterfly), "num"],
];

async function askSurface() {
  if (document.hidden || document.body.classList.contains("lost")) return;
  try {
    const reply = await fetch("/surface");
    if (reply.ok) surfaces = (await reply.json()).surfaces;
  } catch {
    return;  // the stream says that the connection is lost
  }
  showSurface();
}

function choices(into, names, wanted) {
  const now = [...into.options].map((option) => option.value);
  if (now.join() !== names.join()) into.replaceChildren(...names.map((name) => make("option", "", name)));
  into.value = names.includes(wanted) ? wanted : names[0] ?? "";
  return into.value;
}

function showSurface() {
  $("surface").hidden = !surfaces.length;
  if (!surfaces.length) return;
  const name = choices($("underlying"), surfaces.map((s) => s.underlying), $("underlying").value);
  const s = surfaces.find((s) => s.underlying === name);
  badge("trust", s.relied ? "relied upon" : `not relied upon: ${s.why}; no new vega risk`, s.relied ? "good" : "bad");
  $("quality").textContent = s.smiles.length ? quality(s) : "";
  const wanted = chosen || s.smiles.find((smile) => smile.days > 20)?.expiry;
  const expiry = choices($("expiry"), s.smiles.map((smile) => smile.expiry), wanted);
  table($("tenors"), [["", (t) => `${number(t.days)} days`], ...TERMS], s.tenors);
  table($("smiles"), [
    ["expiry", (e) => e.expiry], ["in", (e) => left(e.days), "num"], ["forward", (e) => number(e.forward, 1), "num"], ...TERMS,
    ["quotes", (e) => number(e.quotes), "num"], ["dropped", (e) => number(e.dropped), "num"],
    ["inside", (e) => (e.quotes ? percent(e.inside / e.quotes, 0) : "–"), "num"],
    ["rests on", (e) => RESTS_ON[e.rung] ?? word(e.rung), "dim"],
  ], s.smiles, {
    row: (line, e) => {
      line.className = e.expiry === expiry ? "pick chosen" : "pick";
      line.tabIndex = 0;
      line.onclick = () => choose(e.expiry);
      line.onkeydown = (event) => event.key === "Enter" && choose(e.expiry);
    },
  });
  if (window.Plotly) drawSurface(s, s.smiles.find((smile) => smile.expiry === expiry));
}

function choose(expiry) {
  chosen = expiry;
  showSurface();
}

const quality = (s) => [
  `quotes ${age(s.age_s)} old`,
  `${level(s.inside)} of ${number(s.quotes)} inside bid and ask${s.dropped ? `, ${number(s.dropped)} dropped` : ""}`,
  `${number(s.rmse_vol_pts)} points off their mids`,
  s.calendar_violations || s.min_g < 0 ? "with arbitrage" : "free of arbitrage",
  `fitted in ${number(s.fit_ms, 0)} ms`,
].join(" · ");

// --- charts ------------------------------------------------------------------------------------------------

const LEGEND = { orientation: "h", y: 1.02, yanchor: "bottom", x: 1, xanchor: "right" };  // on a phone it has lines

function drawSurface(s, smile) {
  const term = (of, name, color, more) => line(s.smiles.map((e) => e.days), s.smiles.map(of), name, color, more);
  const dotted = (color) => ({ mode: "lines+markers", line: { color, width: 1, dash: "dot" }, marker: { size: 4 } });
  draw($("term"), s.smiles.length ? [
    term((e) => e.atm + e.butterfly - e.risk_reversal / 2, "put of 25 delta", RED, dotted(RED)),
    term((e) => e.atm + e.butterfly + e.risk_reversal / 2, "call of 25 delta", GREEN, dotted(GREEN)),
    term((e) => e.atm, "at the money", BLUE, { mode: "lines+markers", marker: { size: 6 } }),
  ] : [], { xaxis: { type: "log", title: { text: "days", standoff: 4 }, tickvals: DAYS, ticktext: DAYS }, yaxis: { tickformat: ".0%" }, legend: LEGEND });
  $("smile-says").textContent = smile ? `${left(smile.days)}, forward ${number(smile.forward_now ?? smile.forward, 1)}` : "";
  drawSmile(smile);
}

function drawSmile(smile) {
  const empty = { strike: [], iv: [], quoted: { strike: [], bid_iv: [], ask_iv: [] } };
  const { strike, iv, quoted } = smile ?? empty;
  const at = (i) => ({ x: quoted.strike[i], bid: quoted.bid_iv[i], ask: quoted.ask_iv[i] });
  const quotes = quoted.strike.map((_, i) => at(i));
  const both = quotes.filter((q) => known(q.bid) && known(q.ask));
  const holds = (q) => { const y = on(strike, iv, q.x); return !known(y) || (q.bid <= y && y <= q.ask); };
  const bars = (some, name, color) => ({
    x: some.map((q) => q.x), y: some.map((q) => (q.bid + q.ask) / 2), name, type: "scatter", mode: "markers",
    marker: { size: 3, color }, hovertemplate: "%{y:.1%} ± %{error_y.array:.1%}",
    error_y: { type: "data", array: some.map((q) => (q.ask - q.bid) / 2), color, thickness: 1.4, width: 3 },
  });
  const alone = (some, side, symbol) => ({
    x: some.map((q) => q.x), y: some.map((q) => q[side]), name: `${side} alone`, type: "scatter", mode: "markers",
    marker: { size: 6, color: GREY, symbol }, hovertemplate: "%{y:.1%}",
  });
  const traces = [
    line(strike, iv, "surface", BLUE, { hovertemplate: "%{y:.1%}", line: { color: BLUE, width: 2 } }),
    bars(both.filter(holds), "bid to ask", GREY), bars(both.filter((q) => !holds(q)), "missed", AMBER),
    alone(quotes.filter((q) => known(q.bid) && !known(q.ask)), "bid", "triangle-up-open"),
    alone(quotes.filter((q) => known(q.ask) && !known(q.bid)), "ask", "triangle-down-open"),
  ].filter((trace) => trace.x.length);
  const forward = smile?.forward_now ?? smile?.forward;
  const mark = { type: "line", x0: forward, x1: forward, y0: 0, y1: 1, yref: "paper", line: { color: GREY, width: 1, dash: "dot" } };
  draw($("smile"), traces, {
    hovermode: "closest", legend: LEGEND, uirevision: smile?.expiry, shapes: known(forward) ? [mark] : [],
    xaxis: { type: "linear", tickformat: "~s", title: { text: "strike", standoff: 4 } },
    yaxis: { tickformat: ".0%", ...window_of(iv, both) },
  });
}

// What the surface and its quotes need: one wide quote far out would flatten the rest.
function window_of(iv, both) {
  const levels = [...iv, ...both.map((q) => (q.bid + q.ask) / 2)].filter(known);
  if (!levels.length) return {};
  const [low, high] = [Math.min(...levels), Math.max(...levels)];
  const room = Math.max(0.15 * (high - low), 0.02);
  return { range: [Math.max(low - room, 0), high + room] };
}

// Of a curve at x, linear between its points; nothing beyond its ends.
function on(xs, ys, x) {
  const i = xs.findIndex((right) => right >= x);
  if (i < 0 || (i === 0 && xs[0] > x)) return null;
  if (i === 0) return ys[0];
  return ys[i - 1] + ((ys[i] - ys[i - 1]) * (x - xs[i - 1])) / (xs[i] - xs[i - 1]);
}

$("underlying").onchange = showSurface;
$("expiry").onchange = () => choose($("expiry").value);
sizes.observe($("smile"));
sizes.observe($("term"));
setInterval(askSurface, SURFACE_MS);
askSurface();
