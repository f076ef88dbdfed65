// Columns fixed by sliders, and the exact conditional density of the others while they are moved.

import { newest, post, unpack } from "../api.js";
import { bars, choice, knob, readable, searchable, table, telling } from "../columns.js";
import { el, facts, number, told } from "../dom.js";
import { KEYS, curveChart, fitted, heatChart, keys } from "../plots.js";

export async function render() {
  const { names, low, high, typical } = await table();
  const fixed = new Map([[0, typical[0]]]), entries = [];
  let targets = [names.length - 1], zoom = false, found = null, density = null;

  const problem = el("div"), about = el("div"), given = el("div"), legend = el("div");
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
    legend.replaceChildren(keys(found.curve ? [KEYS.density, KEYS.beside, KEYS.interval, KEYS.mean, KEYS.median] : [KEYS.middle, KEYS.contours]));
    about.replaceChildren(facts([
      ...targets.flatMap((t, i) => {
        const one = at(i), say = (value) => readable(value, one.deviation);
        return [
          [names[t], `${say(one.mean)} ± ${say(one.deviation)}`],
          ["median; 90 % interval", `${say(one.median)}; ${say(one.low)} to ${say(one.high)}`],
        ];
      }),
      ["log p(fixed)", `${number(found.log_prob, 3)} nats`],
    ]));
    given.replaceChildren(el("h3", {}, "Components, given what is fixed"), bars(found.responsibilities));
    found.free.forEach((i, j) => entries[i].free(found.mean[j], found.deviation[j]));
  }, plot.place));

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
    const box = el("input", { type: "checkbox", onchange: () => fix(i, box.checked ? current : null) });
    const says = el("output", {}), slider = knob({ name, low: low[i], high: high[i], value: typical[i] }, (v, error) => {
      if (error) { problem.replaceChildren(told(error)); return; }
      current = v;
      box.checked = true;
      fix(i, v);
    });
    let current = typical[i];
    const entry = el("div", { class: "column" }, el("label", {}, box, el("span", {}, `fix ${name}`)), says, slider);
    entry.fixed = (is) => { box.checked = is; if (is) says.textContent = "fixed"; };
    entry.free = (mean, deviation) => {
      current = mean;
      slider.set(mean);
      says.textContent = `${readable(mean, deviation)} ± ${readable(deviation, deviation)}`;
    };
    entry.fixed(fixed.has(i));
    entries.push(entry);
  });

  ask();
  return el("div", { class: "split" },
    el("section", {},
      el("h2", {}, "What some columns say of others"),
      el("div", { class: "row" }, first, names.length > 2 ? second : null, el("label", {}, near, " zoom in on the density")),
      plot.place, legend, problem),
    el("section", { class: "card aside" },
      el("h3", { class: "first" }, "Fix columns"),
      el("p", { class: "hint" }, "Move a slider to fix a column. Sliders of free columns stand at their means, given what is fixed."),
      ...searchable(names, entries)),
    el("section", { class: "under" }, about, given));
}
