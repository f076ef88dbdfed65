// New images: from a mixture over images, or decoded from the prior beside a mixture of latents.

import { get, newest, unpack } from "../api.js";
import { el, filled } from "../dom.js";
import { count } from "../numbers.js";
import { wall } from "../pixels.js";

export async function render(model) {
  const decoder = model.views.includes("latents");
  const sides = decoder ? [
    side("prior", "Latents from the prior", ({ components: k }) => k > 1 ? `The prior is a mixture of ${k} components.` : "The prior is one Gaussian."),
    side("mixture", "Latents from a mixture fitted to those of the rows", ({ components: k, most_rows: n }) => `${k} component${k > 1 ? "s" : ""}, as many as BIC asks for, fitted to the latents of up to ${count(n)} rows.`),
  ] : [side(null, null, null)];
  let seed = 0, noise = false;
  const drawn = () => sides.forEach((one) => one.draw(decoder ? 32 : 48, seed, noise));
  drawn();
  const box = el("input", { type: "checkbox", onchange: (event) => { noise = event.target.checked; drawn(); } });
  return el("section", {},
    el("h2", {}, "Samples"),
    el("p", { class: "soft" }, decoder
      ? "New images: latents are drawn, then decoded. The prior is what latents were meant to follow; the mixture is fitted to where those of the training rows are. Noise is how data scatter about what is decoded."
      : "New images: a component by its weight, then a draw of its factors. Noise is what no factor explains."),
    el("div", { class: "row" },
      el("button", { type: "button", class: "main", onclick: () => { seed += 1; drawn(); } }, "Draw again"),
      el("label", {}, box, " with noise")),
    decoder ? el("div", { class: "halves" }, ...sides.map((one) => one.root)) : sides[0].root);
}

function side(latents, heading, told) {
  const place = el("div"), which = latents ? `&latents=${latents}` : "";
  const wait = latents === "mixture" ? "Fitting a mixture to the latents …" : "Loading …";
  const drawn = newest((n, seed, noise) => filled(place, async () => {
    const found = await get(`samples?n=${n}&seed=${seed}&noise=${noise}${which}`);
    return [
      wall(unpack(found.pixels), (i) => ({ text: "", alt: `Sample ${i + 1}${latents ? ` from the ${latents}` : ""}` })),
      told ? el("p", { class: "hint" }, told(found)) : null,
    ];
  }, wait));
  return { root: heading ? el("section", { class: "card" }, el("h3", { style: "margin-top: 0" }, heading), place) : place, draw: drawn };
}
