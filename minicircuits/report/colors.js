"use strict";
/* Orange adds, blue takes away, in light and in dark; both differ for every kind of eye. */

const dark = matchMedia("(prefers-color-scheme: dark)");
const repaints = [];

/* Do it now, and whenever light and dark change. */
function onPalette(paint) {
  repaints.push(paint);
  paint();
}

let palette;
function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const color = name => style.getPropertyValue(name).trim().match(/\w\w/g)
    .map(part => parseInt(part, 16));
  palette = {paper: color("--paper"), more: color("--more"), less: color("--less")};
}
readPalette();
dark.addEventListener("change", () => {
  readPalette();
  repaints.forEach(paint => paint());
});

/* [red, green, blue] of a value from −1 to 1; strength grows with the square root of it. */
function shade(value) {
  const strength = Math.sqrt(Math.min(1, Math.abs(value)));
  const full = value < 0 ? palette.less : palette.more;
  return palette.paper.map((from, n) => Math.round(from + (full[n] - from) * strength));
}

function shadeText(value) {
  return `rgb(${shade(value).join(" ")})`;
}
