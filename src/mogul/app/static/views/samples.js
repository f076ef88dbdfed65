// New images from the whole mixture.

import { get, newest, unpack } from "../api.js";
import { el, filled } from "../dom.js";
import { wall } from "../pixels.js";

export async function render() {
  const place = el("div");
  let seed = 0, noise = false;
  const drawn = newest(() => filled(place, async () => {
    const found = await get(`samples?n=48&seed=${seed}&noise=${noise}`);
    return wall(unpack(found.pixels), (i) => ({ text: "", alt: `Sample ${i + 1}` }));
  }));
  drawn();
  const box = el("input", { type: "checkbox", onchange: (event) => { noise = event.target.checked; drawn(); } });
  return el("section", {},
    el("h2", {}, "Samples"),
    el("p", { class: "soft" }, "New images: a component by its weight, then a draw of its factors. Noise is what no factor explains."),
    el("div", { class: "row" },
      el("button", { type: "button", class: "main", onclick: () => { seed += 1; drawn(); } }, "Draw again"),
      el("label", {}, box, " with noise")),
    place);
}
