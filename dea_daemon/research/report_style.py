"""What reports share: looks, and the frame of a page. Colours are named once, for light and for dark."""

from collections.abc import Sequence
from html import escape

STYLE = """
:root {
  --ground: #f6f7f9; --card: #ffffff; --line: #e1e5ea; --grid: #e8ebef; --text: #1c2430; --dim: #66717f;
  --blue: #1f6feb; --amber: #b7791f; --green: #1a8a3f; --red: #cf2f2f; --violet: #7d4fd0; --pink: #c2417f;
  --band: rgba(183, 121, 31, .17); --clear: rgba(0, 0, 0, 0);
  color-scheme: light;
}
:root[data-theme=dark] {
  --ground: #0e1116; --card: #161b22; --line: #262d37; --grid: #222933; --text: #d7dde5; --dim: #8b96a4;
  --blue: #58a6ff; --amber: #e0a93a; --green: #3fb950; --red: #f85149; --violet: #b083f0; --pink: #f778ba;
  --band: rgba(224, 169, 58, .19); color-scheme: dark;
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 14px/1.5 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 20px; display: grid; gap: 14px; }
main > *, .two > * { min-width: 0; }
header { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: baseline; }
h1 { margin: 0; font-size: 24px; font-weight: 650; letter-spacing: -.01em; }
h2 { margin: 0 0 2px; font-size: 16px; font-weight: 650; }
h3 { margin: 10px 0 0; font-size: 14px; font-weight: 600; }
header p, p.about, small { color: var(--dim); margin: 0; }
p.about { margin-bottom: 6px; max-width: 125ch; }
button {
  margin-left: auto; padding: 3px 12px; border: 1px solid var(--line); border-radius: 14px; cursor: pointer;
  background: var(--card); color: var(--text); font: inherit; font-size: 12px;
}
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 18px; }
article.words { font-size: 15.5px; } article.words p { margin: 0 0 6px; max-width: 110ch; }
article.warn { border-color: var(--amber); border-left-width: 5px; }
article.warn ul { margin: 4px 0; padding-left: 20px; }
#tiles { display: grid; gap: 10px; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); }
#tiles > div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px; }
#tiles b { display: block; font-size: 24px; line-height: 1.25; font-weight: 620; font-variant-numeric: tabular-nums; }
#tiles span { font-size: 13px; font-weight: 600; } #tiles small { display: block; font-size: 12px; line-height: 1.35; }
.two { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 13px; }
table + table { margin-top: 18px; }
th { text-align: left; color: var(--dim); font-weight: 550; vertical-align: bottom; }
th, td { padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); }
td { vertical-align: top; } tr:last-child td { border-bottom: 0; }
td.num, th.num { text-align: right; white-space: nowrap; } td.keep { white-space: nowrap; }
tr.own td { font-weight: 650; }
pre {
  margin: 6px 0 0; padding: 10px 12px; border-radius: 6px; background: var(--ground); font-size: 12px;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
summary { cursor: pointer; font-weight: 600; }
footer { color: var(--dim); font-size: 12px; text-align: center; padding: 4px 0 16px; }
@media (max-width: 520px) { .two { grid-template-columns: 1fr; } main { padding: 10px; } }
@media print {
  @page { size: A4; margin: 11mm; }
  body { background: #fff; font-size: 11px; } button { display: none; }
  main { padding: 0; gap: 8px; max-width: none; } .two { grid-template-columns: 1fr 1fr; gap: 8px; }
  article, #tiles > div { break-inside: avoid; padding: 8px 10px; } article.long { break-inside: auto; }
  #tiles { grid-template-columns: repeat(5, 1fr); } #tiles b { font-size: 17px; }
  article.words { font-size: 12px; } table { font-size: 10px; } th, td { padding-right: 8px; }
}
"""

SCRIPT = """
const charts = JSON.parse(document.getElementById("charts").textContent);
const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
const colour = name => getComputedStyle(root).getPropertyValue("--" + name).trim();
function themed(value) {
  if (typeof value === "string") return value[0] === "@" ? colour(value.slice(1)) : value;
  if (Array.isArray(value)) return value.map(themed);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, themed(inner)]));
}
function axis(own, more) {
  const lines = { gridcolor: "@grid", linecolor: "@line", zerolinecolor: "@line", automargin: true };
  const axis = { ...lines, ...more, ...own };
  if (own && own.title) axis.title = { standoff: 8, font: { size: 12, color: "@dim" }, ...own.title };
  return axis;
}
function layout(own) {
  const base = {
    paper_bgcolor: "@clear", plot_bgcolor: "@clear",
    font: { color: "@text", size: 12, family: "system-ui, sans-serif" },
    margin: { l: 62, r: 14, t: 34, b: 34 }, hovermode: "x unified", bargap: 0.25,
    hoverlabel: { bgcolor: "@card", bordercolor: "@line", font: { color: "@text" } },
    legend: { orientation: "h", x: 0, y: 1.0, yanchor: "bottom", font: { size: 12 } },
    ...own, xaxis: axis(own.xaxis, { type: "date", showgrid: false }), yaxis: axis(own.yaxis),
  };
  if (own.yaxis2) base.yaxis2 = axis(own.yaxis2);
  return themed(base);
}
const config = { responsive: true, displayModeBar: false };
function draw(theme) {
  root.dataset.theme = theme || chosen || (dark.matches ? "dark" : "light");
  for (const [id, chart] of Object.entries(charts)) {
    const element = document.getElementById(id);
    if (element) Plotly.react(element, themed(chart.traces), layout(chart.layout), config);
  }
}
function resize() {
  for (const id of Object.keys(charts)) {
    const element = document.getElementById(id);
    if (element) Plotly.Plots.resize(element);
  }
}
document.getElementById("theme").onclick = () => {
  chosen = root.dataset.theme === "dark" ? "light" : "dark";
  draw();
};
dark.addEventListener("change", () => draw());
addEventListener("beforeprint", () => { draw("light"); resize(); });
addEventListener("afterprint", () => { draw(); resize(); });
draw();
"""


def document(title: str, style: str, body: Sequence[str], footer: str, script: str) -> str:
    """A page that needs nothing beside it."""
    parts = chr(10).join(body)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<main>
{parts}
<footer>{escape(footer)}</footer>
</main>
<script>{script}</script>
</body>
</html>
"""


def header(title: str, about: str) -> str:
    button = '<button id="theme" type="button">light / dark</button>'
    return f"<header><h1>{escape(title)}</h1><p>{escape(about)}</p>{button}</header>"


def article(title: str, about: str, *parts: str) -> str:
    return f'<article><h2>{escape(title)}</h2><p class="about">{escape(about)}</p>{"".join(parts)}</article>'
