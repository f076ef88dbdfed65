// Rows below a threshold of likelihood, the least likely first; the threshold is a share of training rows.

import { get, unpack } from "../api.js";
import { histogram } from "../charts.js";
import { el, filled, slider } from "../dom.js";
import { count, logs, nats, percent } from "../numbers.js";
import { wall } from "../pixels.js";

const MOST = 96; // rows shown

export async function render(model) {
  const found = await get("outliers");
  const all = unpack(found.all).values, chart = histogram(found.edges, found.counts, {
    xName: "log-likelihood in nats; the mark is the threshold", alt: "Histogram of log-likelihoods",
  });
  const state = el("p", { role: "status" }), place = el("div"), more = model.image ? pictures : table;
  let timer = null;

  function change(exponent) {
    const share = 10 ** exponent, threshold = quantile(found.quantiles, share);
    const below = all.findIndex((v) => v >= threshold), n = below < 0 ? all.length : below;
    chart.mark(threshold);
    state.textContent = `${count(n)} of ${count(found.n)} rows lie below ${nats(threshold)}, as ${percent(share)} of the training rows do.`;
    clearTimeout(timer);
    const shown = Math.min(n, MOST, found.rows.length);
    timer = setTimeout(() => filled(place, async () => [
      await more(found, shown), shown < n ? el("p", { class: "hint" }, `… and ${count(n - shown)} more.`) : null,
    ]), 120);
  }

  const threshold = slider("threshold", { min: -3, max: -0.3, step: 0.05, value: -2, show: (v) => percent(10 ** v) }, change);
  change(-2);
  return el("section", {},
    el("h2", {}, `The least likely rows of ${model.sets.shown.name}`),
    el("p", { class: "soft" }, "Unusual, wrong, or not of this kind. The threshold is a share of the training rows, all of which are meant to be usual."),
    el("div", { class: "card" }, chart, el("div", { class: "sliders" }, threshold), state),
    found.with_gaps ? el("p", { class: "hint" }, `${count(found.with_gaps)} rows with gaps are not judged: the density of a part cannot be compared with that of a whole.`) : null,
    found.of > found.n + found.with_gaps ? el("p", { class: "hint" }, `The first ${count(found.n + found.with_gaps)} of ${count(found.of)} rows were looked at.`) : null,
    el("h3", {}, "The least likely first"), place);
}

function quantile(values, share) {
  const at = share * (values.length - 1), low = Math.floor(at);
  return values[low] + (at - low) * ((values[low + 1] ?? values[low]) - values[low]);
}

async function pictures(found, n) {
  if (!n) return el("p", { class: "hint" }, "None.");
  const rows = found.rows.slice(0, n), images = await get(`rows/shown?${rows.map((i) => `index=${i}`).join("&")}`);
  const label = (i) => ({ text: logs(found.log_likelihoods[i]), alt: `Row ${rows[i]}, ${nats(found.log_likelihoods[i])}; draw on it` });
  return wall(unpack(images.pixels), label, (i) => { location.hash = `drawing/${rows[i]}`; });
}

async function table(found, n) {
  if (!n) return el("p", { class: "hint" }, "None.");
  const line = (i) => el("tr", {}, el("td", {}, String(found.rows[i])), el("td", {}, logs(found.log_likelihoods[i])));
  return el("div", { class: "table" }, el("table", {},
    el("thead", {}, el("tr", {}, el("th", {}, "row"), el("th", {}, "log-likelihood"))),
    el("tbody", {}, ...Array.from({ length: n }, (_, i) => line(i)))));
}
