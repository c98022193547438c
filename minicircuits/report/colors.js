/* Orange adds, blue takes away, in light and in dark; both differ for every kind of eye. */

const dark = matchMedia("screen and (prefers-color-scheme: dark)");
let palette;
function useScheme() {
  const style = getComputedStyle(document.documentElement);
  const color = name => style.getPropertyValue(name).trim().match(/\w\w/g).map(part => parseInt(part, 16));
  palette = {paper: color("--paper"), more: color("--more"), less: color("--less")};
  tell(["colors"]);
}
useScheme();
dark.addEventListener("change", useScheme);

/* [red, green, blue] of a value from −1 to 1; strength grows with this power of it. */
function shade(value, power = 0.5) {
  const strength = Math.min(1, Math.abs(value)) ** power;
  const full = value < 0 ? palette.less : palette.more;
  return palette.paper.map((from, n) => Math.round(from + (full[n] - from) * strength));
}

/* Red, green, blue and 255 for each of 511 values from −1 to 1, one after another. */
function shades(power) {
  const table = new Uint8ClampedArray(4 * 511).fill(255);
  for (let n = 0; n < 511; n++) table.set(shade(n / 255 - 1, power), 4 * n);
  return table;
}

/* Colors what words stand on, and them black or white: one of them always has a contrast of 4.5. */
function tint(element, color) {
  const [red, green, blue] = color.map(part => ((part / 255 + 0.055) / 1.055) ** 2.4);
  element.style.backgroundColor = `rgb(${color.join(" ")})`;
  element.style.color = 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
}

const shadeText = (value, power) => `rgb(${shade(value, power).join(" ")})`;
