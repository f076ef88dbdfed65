// The history of a fit; while the fit is under way it grows.

import { get } from "../api.js";
import { lines } from "../charts.js";
import { el, facts } from "../dom.js";
import { figure, seconds as long } from "../numbers.js";

const EVERY = 1000; // milliseconds between questions
const NAMES = { log_likelihood: "training", validation: "held out", free_energy: "free energy", evidence_bound: "evidence bound" };
const LEVELS = Object.keys(NAMES);
const APART = new Set(["pass", "events", "seconds", "objective", "log_prior", ...LEVELS]);

export async function render(model, page) {
  const charts = el("div", { class: "halves" }), state = el("p", { role: "status" }), notes = el("div");
  let timer = null, seen = -1;

  async function look() {
    const found = await get("history");
    const { rows } = found, seconds = rows.reduce((sum, row) => sum + (row.seconds ?? 0), 0);
    state.textContent = found.live ? underWay(found, seconds) : `${rows.length} passes in ${long(seconds)}.`;
    if (rows.length !== seen) {
      seen = rows.length;
      charts.replaceChildren(...drawn(rows));
      notes.replaceChildren(...told(rows));
    }
    if (found.live) timer = setTimeout(again, EVERY);
    else if (model.live) page.restart(); // the fit has ended: the whole model may be looked at
  }

  function again() {
    look().catch((error) => { state.textContent = error.message; timer = setTimeout(again, 3 * EVERY); });
  }

  await look();
  const about = model.command ? [el("h3", {}, "How the model was made"), el("pre", {}, model.command)] : [];
  const figures = Object.entries(model.figures ?? {}).map(([k, v]) => [k.replaceAll("_", " "), typeof v === "number" ? figure(v) : v]);
  return {
    content: el("section", {}, el("h2", {}, "Training"), state, charts, notes,
      ...(figures.length ? [el("h3", {}, "Figures"), facts(figures)] : []), ...about),
    leave: () => clearTimeout(timer),
  };
}

function underWay({ rows, passes }, seconds) {
  if (!passes) return "The data are being read and the parameters started.";
  const made = rows.length ? rows[rows.length - 1].pass : 0, took = `${long(seconds)} so far.`;
  if (made >= passes) return `All ${passes} passes are made; the last figures are being worked out. ${took}`;
  return rows.length ? `Pass ${made + 1} of at most ${passes}; ${took}` : `Pass 1 of at most ${passes}.`;
}

function drawn(rows) {
  if (!rows.length) return [el("div", { class: "wait" }, "Charts begin with the first pass …")];
  const of = (key) => ({ name: NAMES[key] ?? key.replaceAll("_", " "), x: rows.map((r) => r.pass), y: rows.map((r) => r[key] ?? NaN) });
  const has = (key) => rows.some((r) => typeof r[key] === "number");
  const levels = LEVELS.filter(has), main = levels.length ? levels : ["objective"].filter(has);
  const others = Object.keys(rows[rows.length - 1]).filter((key) => !APART.has(key) && has(key));
  const chart = (series, caption) => el("figure", { class: "card" },
    lines(series, { xName: "pass", whole: true, alt: `${caption}, by pass` }), el("figcaption", {}, caption,
      ...(series.length > 1 ? series.map((s, i) => el("span", { style: `color:var(--c${i % 8})` }, ` — ${s.name}`)) : [])));
  return [
    chart(main.map(of), "Nats per row"),
    ...(has("seconds") ? [chart([of("seconds")], "Seconds per pass")] : []),
    ...others.map((key) => chart([of(key)], key.replaceAll("_", " "))),
  ];
}

function told(rows) {
  const events = rows.flatMap((row) => (row.events ?? []).map((event) => `Pass ${row.pass}: ${event}`));
  return events.length ? [el("h3", {}, "What happened"), el("ul", {}, ...events.slice(0, 40).map((e) => el("li", {}, e)))] : [];
}
