"""How the page looks: one style sheet, for a desk, a phone, the dark, and paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f5f6f8; --card: #ffffff; --ink: #1a2029; --muted: #566072; --line: #dfe3ea;
  --accent: #2457c5; --band: #2457c526; --good: #14693c; --good-soft: #e0f3e7;
  --bad: #b3261e; --bad-soft: #fdeae8; --warn: #825000; --warn-soft: #fcefd6; --soft: #eceff4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #11151b; --card: #1a2029; --ink: #e8ecf2; --muted: #a3adbd; --line: #303a48;
    --accent: #86acff; --band: #86acff2e; --good: #74d69c; --good-soft: #173526;
    --bad: #ff9a90; --bad-soft: #43201d; --warn: #f3c06a; --warn-soft: #3b2d12; --soft: #262e3a;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 66rem; background: var(--page);
  color: var(--ink); font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  overflow-wrap: anywhere; font-variant-numeric: tabular-nums;
}
h1, h2, h3, p, dl, figure, ul, ol { margin: 0; padding: 0; }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -0.01em; }
h2 { font-size: 1.2rem; line-height: 1.3; }
h3 { font-size: 1rem; }
main { display: grid; gap: 1.25rem; margin-top: 1.5rem; }
main > * { min-width: 0; }
.card, .tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.card { padding: 1.4rem 1.5rem; }
.over { color: var(--muted); font-size: 0.8125rem; font-weight: 600; letter-spacing: 0.02em; }
.lead { margin-top: 0.35rem; font-size: 1.0625rem; max-width: 46rem; }
.note { color: var(--muted); font-size: 0.875rem; margin-top: 0.3rem; max-width: 50rem; }
header .over { margin-bottom: 0.2rem; }
.light { font-weight: 400; }
.small { display: block; color: var(--muted); font-size: 0.8125rem; }
header .lead { color: var(--muted); }
.facts { display: flex; flex-wrap: wrap; gap: 0.4rem 2rem; margin-top: 0.9rem; }
.facts dt { color: var(--muted); font-size: 0.8125rem; }
.facts dd { margin: 0; font-size: 0.875rem; }
.hero { border-left: 6px solid var(--accent); }
.hero.good { border-left-color: var(--good); }
.hero.bad { border-left-color: var(--bad); }
.hero.warn { border-left-color: var(--warn); }
.verdict { font-size: 1.75rem; font-weight: 700; line-height: 1.25; color: var(--accent); }
.hero.good .verdict { color: var(--good); }
.hero.bad .verdict { color: var(--bad); }
.hero.warn .verdict { color: var(--warn); }
.hero ul { margin-top: 0.7rem; padding-left: 1.2rem; max-width: 50rem; }
.hero li + li { margin-top: 0.25rem; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1.25rem; }
.tile { padding: 1rem 1.1rem; min-width: 0; }
.figure { font-size: 1.4rem; font-weight: 650; line-height: 1.3; }
.tile.good .figure { color: var(--good); }
.tile.bad .figure { color: var(--bad); }
.tile.warn .figure { color: var(--warn); }
.chip {
  display: inline-block; border-radius: 999px; padding: 0.05rem 0.6rem; font-size: 0.8125rem;
  font-weight: 600; background: var(--soft); color: var(--muted); vertical-align: 0.08em;
}
.chip.good { background: var(--good-soft); color: var(--good); }
.chip.bad { background: var(--bad-soft); color: var(--bad); }
.chip.warn { background: var(--warn-soft); color: var(--warn); }
.mark { margin-right: 0.3rem; }
figure { margin-top: 1.1rem; }
figcaption { color: var(--muted); font-size: 0.875rem; }
svg { display: block; max-width: 100%; }
.chart { height: auto; width: 100%; margin-top: 0.4rem; }
.middle, .narrow { display: none; }
svg text { font-size: 12.5px; fill: var(--muted); font-family: inherit; }
svg .ramp-label { fill: var(--ink); font-weight: 600; }
.grid { stroke: var(--line); }
.zero { stroke: var(--ink); stroke-width: 1.25; }
.axis { stroke: var(--muted); }
.band { fill: var(--band); }
.bound { fill: none; stroke: var(--accent); stroke-width: 1; opacity: 0.6; }
.bound.single { stroke-width: 8; opacity: 0.35; }
.estimate { fill: none; stroke: var(--accent); stroke-width: 2.25; stroke-linejoin: round; }
.dot { fill: var(--accent); stroke: var(--card); stroke-width: 1.5; }
.ramp { stroke: var(--muted); stroke-dasharray: 3 4; }
.truth { stroke: var(--good); stroke-width: 1.5; stroke-dasharray: 1 4; stroke-linecap: round; }
.limit { stroke: var(--bad); stroke-width: 1.5; }
.look { fill: transparent; }
.look:hover { fill: var(--band); }
.whisker { stroke: var(--accent); stroke-width: 2.5; stroke-linecap: round; }
.bar { flex: none; }
.bar .zero { stroke: var(--muted); stroke-width: 1; }
.bar.good .whisker { stroke: var(--good); } .bar.good .dot { fill: var(--good); }
.bar.bad .whisker { stroke: var(--bad); } .bar.bad .dot { fill: var(--bad); }
table { width: 100%; border-collapse: collapse; margin-top: 0.8rem; font-size: 0.9375rem; }
caption { text-align: left; color: var(--muted); font-size: 0.875rem; padding-bottom: 0.3rem; }
th, td {
  text-align: left; vertical-align: top; padding: 0.5rem 0.9rem 0.5rem 0;
  border-top: 1px solid var(--line);
}
thead th {
  color: var(--muted); font-size: 0.8125rem; font-weight: 600; border-top: 0;
  vertical-align: bottom;
}
tbody th { font-weight: 600; }
th:last-child, td:last-child { padding-right: 0; }
th.number, td.number { text-align: right; }
.scroll { overflow-x: auto; }
@media (min-width: 48.01rem) {
  /* Columns are at least as wide as their words; on a phone there are no columns. */
  th, td { overflow-wrap: break-word; }
  td.number, td .chip, th .chip { white-space: nowrap; }
  td.number .small { white-space: normal; }
}
details { margin-top: 0.6rem; font-size: 0.875rem; }
summary { cursor: pointer; color: var(--accent); width: fit-content; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: 4px; }
.lineage { list-style: none; margin-top: 0.8rem; }
.lineage li { border-left: 2px solid var(--line); padding: 0 0 0.9rem 1.2rem; position: relative; }
.lineage li::before {
  content: ""; position: absolute; left: -7px; top: 0.4rem; width: 12px; height: 12px;
  border-radius: 50%; background: var(--card); border: 2px solid var(--accent);
}
.lineage li:last-child { border-left-color: transparent; padding-bottom: 0; }
.lineage .chip { margin-right: 0.35rem; }
@media (max-width: 60rem) {
  .wide { display: none; }
  .middle { display: block; }
  th, td { padding-right: 0.55rem; }
}
@media (max-width: 52rem) {
  .tiles { grid-template-columns: 1fr 1fr; gap: 0.75rem; }
}
@media (max-width: 40rem) {
  body { padding: 1.25rem 0.75rem 3rem; }
  h1 { font-size: 1.6rem; }
  .card { padding: 1.1rem 1rem; }
  .tile { padding: 0.8rem 0.9rem; }
  .figure { font-size: 1.2rem; }
  .middle { display: none; }
  .narrow { display: block; }
}
@media (max-width: 48rem) {
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table, tbody, tr, th, td, caption { display: block; }
  tr { padding: 0.6rem 0; border-top: 1px solid var(--line); }
  tbody th, td { border: 0; padding: 0.15rem 0; }
  td { display: flex; justify-content: space-between; gap: 1rem; }
  td::before { content: attr(data-label); color: var(--muted); flex: 0 0 auto; max-width: 45%; }
  td, td.number { text-align: right; }
  .cell { min-width: 0; display: flex; flex-direction: column; align-items: flex-end; }
}
@media print {
  :root {
    --page: #ffffff; --card: #ffffff; --ink: #000000; --muted: #444444; --line: #bbbbbb;
    --accent: #1d479f; --band: #2457c526; --good: #14693c; --bad: #b3261e; --warn: #825000;
    --soft: #eeeeee; --good-soft: #ffffff; --bad-soft: #ffffff; --warn-soft: #ffffff;
  }
  body { padding: 0; max-width: none; font-size: 10.5pt; }
  .card, .tile, figure, tr, .lineage li { break-inside: avoid; }
  details { display: none; }
}
"""
