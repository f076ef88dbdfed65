// Columns fixed by sliders, and the exact conditional density of the others while they are moved.

import { newest, post, unpack } from "../api.js";
import { bars, choice, knob, searchable, table, telling } from "../columns.js";
import { el, facts, told } from "../dom.js";
import { count, nats, percent, readable, rounded, spread } from "../numbers.js";
import { KEYS, curveChart, fitted, heatChart, keys } from "../plots.js";

const RARE = 0.05; // of the training rows, below which what is fixed is called rare

export async function render() {
  const { names, low, high, typical } = await table();
  const fixed = new Map([[0, rounded(typical[0], high[0] - low[0])]]), entries = [];
  let targets = [names.length - 1], zoom = false, found = null, density = null;

  const usual = el("p", { class: "far", role: "status", hidden: true }), problem = el("div"), about = el("div"), given = el("div"), legend = el("div");
  const plot = fitted(drawn);

  function drawn(width) {
    if (!found) return null;
    if (found.curve) return curveChart(at(0), { name: names[targets[0]], width });
    return heatChart(found.heat, density, {
      names: targets.map((t) => names[t]), width, marks: [{ at: targets.map((_, i) => at(i).mean), name: "mean" }],
      alt: `Density of ${names[targets[0]]} and ${names[targets[1]]} given what is fixed`,
    });
  }

  // What is known of one of the targets.
  function at(i) {
    const j = found.free.indexOf(targets[i]), of = { curve: found.curve };
    for (const key of ["mean", "deviation", "median", "low", "high"]) of[key] = found[key][j];
    return of;
  }

  const ask = newest(telling(problem, async () => {
    const asked = { columns: [...fixed.keys()], values: [...fixed.values()], targets, zoom };
    const answer = await post("conditional", asked);
    if (String(asked.targets) !== String(targets)) return; // others are asked for already
    found = answer;
    density = found.heat ? unpack(found.heat.density) : null;
    plot.again();
    compare(found);
    legend.replaceChildren(keys(found.curve ? [KEYS.density, KEYS.beside, KEYS.interval, KEYS.mean, KEYS.median] : [KEYS.middle, KEYS.contours]));
    about.replaceChildren(facts([
      ...targets.flatMap((t, i) => {
        const one = at(i), say = (value) => readable(value, one.deviation);
        return [
          [names[t], spread(one.mean, one.deviation)],
          ["median; 90 % interval", `${say(one.median)}; ${say(one.low)} to ${say(one.high)}`],
        ];
      }),
      ["log p(fixed)", nats(found.log_prob)],
    ]));
    given.replaceChildren(el("h3", {}, "Components, given what is fixed"), bars(found.responsibilities));
    found.free.forEach((i, j) => entries[i].free(found.mean[j], found.deviation[j]));
  }, plot.place));

  function compare({ log_prob, compared }) {
    usual.hidden = !compared;
    if (!compared) return;
    const { below, of, least } = compared, share = below / of, rows = `${count(of)} training rows`;
    usual.className = below === 0 ? "far none" : share < RARE ? "far rare" : "far";
    usual.textContent = below === 0
      ? `Far from the data: none of ${rows} is less likely in what is fixed. The least likely of them lies at ${nats(least)}, this at ${nats(log_prob)}; what is shown of the others is extrapolated.`
      : `${share < RARE ? "Rare" : "Usual"}: ${percent(share)} of ${rows} are less likely in what is fixed.`;
  }

  function fix(i, value) {
    if (value == null) fixed.delete(i);
    else fixed.set(i, value);
    entries[i].fixed(value != null);
    const left = names.findIndex((_, j) => !fixed.has(j) && !targets.includes(j));
    if (value != null && targets.includes(i)) look(targets.length > 1 ? targets.filter((t) => t !== i) : [left < 0 ? i : left]);
    else ask();
  }

  function look(wanted) {
    targets = wanted;
    first.set(targets[0]);
    second.set(targets[1] ?? null);
    const freed = targets.filter((t) => fixed.has(t) && fixed.size < names.length);
    freed.forEach((t) => { fixed.delete(t); entries[t].fixed(false); });
    ask();
  }

  const first = choice("Look at", names, targets[0], (t) => look([t, ...targets.slice(1).filter((u) => u !== t)]));
  const second = choice("and at", names, null, (t) => look(t == null || t === targets[0] ? [targets[0]] : [targets[0], t]), "nothing else");
  const near = el("input", { type: "checkbox", onchange: () => { zoom = near.checked; ask(); } });

  names.forEach((name, i) => {
    const box = el("input", { type: "checkbox", onchange: () => fix(i, box.checked ? slider.value : null) });
    const says = el("output", {}), slider = knob({ name, low: low[i], high: high[i], value: typical[i] }, (v, error) => {
      if (error) { problem.replaceChildren(told(error)); return; }
      box.checked = true;
      fix(i, v);
    });
    const entry = el("div", { class: "column" }, el("label", {}, box, el("span", {}, `fix ${name}`)), says, slider);
    entry.fixed = (is) => { box.checked = is; if (is) says.textContent = "fixed"; };
    entry.free = (mean, deviation) => {
      slider.propose(mean);
      says.textContent = spread(mean, deviation);
    };
    entry.fixed(fixed.has(i));
    entries.push(entry);
  });

  ask();
  return el("div", { class: "split" },
    el("section", {},
      el("h2", {}, "What some columns say of others"),
      el("div", { class: "row" }, first, names.length > 2 ? second : null, el("label", {}, near, " zoom in on the density")),
      plot.place, usual, legend, problem),
    el("section", { class: "card aside" },
      el("h3", { class: "first" }, "Fix columns"),
      el("p", { class: "hint" }, "Move a slider to fix a column. Sliders of free columns stand at their means, given what is fixed."),
      ...searchable(names, entries)),
    el("section", { class: "under" }, about, given));
}
