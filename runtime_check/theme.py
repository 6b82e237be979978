"""The look of the report: one style sheet for light, dark and paper."""

# Each colour has one meaning: grey is dense, teal is compressed, green and red are gates. Text has a
# contrast of at least 4.5 to 1 on its ground in both themes.
STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f6f7f6; --card: #ffffff; --ink: #17211f; --soft: #56635f; --rule: #dce2df; --band: #f1f5f3;
  --before: #98a4a0; --after: #0f766e; --removed: #7fc4bb; --faint: #dbe3e0; --track: #eef2f0;
  --pass: #15703a; --pass-ground: #e4f4e9; --fail: #b3261e; --fail-ground: #fbe9e7;
  --warn: #7a4d00; --warn-ground: #fdf3dc; --median: #17211f;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ground: #101615; --card: #182120; --ink: #e7eeec; --soft: #9fb0ab; --rule: #2b3835; --band: #1d2826;
    --before: #74827e; --after: #2fb8a8; --removed: #1d6b63; --faint: #33413e; --track: #212c2a;
    --pass: #6fd896; --pass-ground: #153022; --fail: #ff9d93; --fail-ground: #3a1c1a;
    --warn: #f0c274; --warn-ground: #33280f; --median: #e7eeec;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
.kicker { margin: 0; color: var(--soft); font-size: .875rem; overflow-wrap: anywhere; }
h1 { margin: .35rem 0 .75rem; font-size: clamp(1.6rem, 4.5vw, 2.4rem); line-height: 1.15;
  letter-spacing: -.015em; text-wrap: balance; }
h2 { margin: 0 0 .25rem; font-size: 1.2rem; letter-spacing: -.005em; }
section { margin-top: 1.25rem; padding: 1.25rem 1.4rem 1.4rem; background: var(--card);
  border: 1px solid var(--rule); border-radius: 12px; }
p.lead { margin: 0 0 1rem; color: var(--soft); max-width: 54rem; }
.verdict { margin: 0; display: inline-flex; align-items: center; gap: .5rem; padding: .4rem .9rem .4rem .6rem;
  border-radius: 999px; font-weight: 600; }
.verdict.pass, .mark.pass { color: var(--pass); background: var(--pass-ground); }
.verdict.fail, .mark.fail { color: var(--fail); background: var(--fail-ground); }
.mark { display: inline-block; padding: .05rem .55rem; border-radius: 999px; font-weight: 600;
  font-size: .875rem; white-space: nowrap; }
.warnings { margin-top: 1.25rem; padding: .9rem 1.2rem; border-radius: 12px; color: var(--warn);
  background: var(--warn-ground); }
.warnings ul { margin: .2rem 0 0; padding-left: 1.2rem; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .9375rem; }
th, td { padding: .5rem 0 .5rem 1.25rem; text-align: right; vertical-align: top;
  border-top: 1px solid var(--rule); }
th:first-child { padding-left: 0; }
td { white-space: nowrap; }
thead th { border-top: 0; color: var(--soft); font-weight: 500; font-size: .875rem; }
th:first-child, td.words, .gates th:is(:nth-child(2), :last-child) { text-align: left; }
tbody th { font-weight: 500; }
td.words { overflow-wrap: anywhere; white-space: normal; }
td.words:last-child { min-width: 16rem; }
td.change { color: var(--after); font-weight: 600; }
td small { display: block; color: var(--soft); font-weight: 400; font-size: .8125rem; }
table.wide { font-size: .8125rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 1.5rem 2rem; }
.cards + .scroll { margin-top: 1.75rem; }
figure { margin: 0; }
figure + figure { margin-top: 1.5rem; }
.cards figure + figure { margin-top: 0; }
figcaption { display: flex; justify-content: space-between; align-items: baseline; gap: .75rem;
  margin-bottom: .35rem; font-weight: 500; }
.cards figcaption span { white-space: nowrap; }
figcaption b { color: var(--after); font-size: 1.05rem; white-space: nowrap; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 0 0 .75rem; padding: 0;
  list-style: none; color: var(--soft); font-size: .875rem; }
.legend i { display: inline-block; width: .8rem; height: .8rem; margin-right: .4rem; border-radius: 2px;
  vertical-align: -1px; }
i.before { background: var(--before); } i.after { background: var(--after); }
i.removed { background: var(--removed); } i.faint { background: var(--faint); }
svg { display: block; width: 100%; height: auto; }
.picture { overflow-x: auto; } .picture svg { min-width: 36rem; } .cards .picture svg { min-width: 0; }
svg text { fill: var(--ink); font-size: 13px; }
svg .small { font-size: 12px; } svg .soft { fill: var(--soft); } svg .strong { font-weight: 600; }
svg .before { fill: var(--before); } svg .after { fill: var(--after); } svg .removed { fill: var(--removed); }
svg .faint { fill: var(--faint); } svg .track { fill: var(--track); } svg .band { fill: var(--band); }
svg .grid { stroke: var(--rule); stroke-width: 1; } svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .median { stroke: var(--median); stroke-width: 1.5; stroke-dasharray: 4 3; }
svg .halo { stroke: var(--card); stroke-width: 4; stroke-linecap: round; }
svg .whisker { stroke: var(--ink); stroke-width: 1.5; }
svg .curve { fill: none; stroke: var(--after); stroke-width: 2; stroke-linejoin: round; }
svg .dot { fill: var(--after); }
details { margin-top: 1rem; } summary { cursor: pointer; color: var(--after); font-weight: 500; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.5rem; margin: .75rem 0 0;
  font-size: .9375rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
pre { margin: .75rem 0 0; padding: 1rem; overflow-x: auto; border-radius: 8px; background: var(--track);
  font: .875rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
footer { margin-top: 1.5rem; color: var(--soft); font-size: .875rem; }
@media (max-width: 40rem) {
  section { padding: 1rem; } table.gates thead { display: none; }
  table.gates tr { display: grid; grid-template-columns: 1fr auto auto auto; border-top: 1px solid var(--rule); }
  table.gates :is(th, td) { border-top: 0; }
  table.gates td.words:last-child { grid-column: 1 / -1; padding: 0 0 .6rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; }
}
@media print {
  :root { color-scheme: light; }
  body { background: #fff; font-size: 11pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; } section { border-color: #ccc; }
  figure, tr, .warnings, dl { break-inside: avoid; } h2 { break-after: avoid; }
  .picture, .scroll, pre { overflow: visible; } pre { white-space: pre-wrap; } .picture svg { min-width: 0; }
}
"""
