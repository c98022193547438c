/* Every head in a hue of its own, and tokens in the mixed hues of the heads that look at them. */

/* [red, green, blue] of the n-th of several heads, all about as bright. */
function hue(n, count) {
  const turn = n / count, part = shift => 0.5 + 0.5 * Math.cos(2 * Math.PI * (turn - shift));
  return [0, 1 / 3, 2 / 3].map(shift => Math.round(40 + 190 * part(shift)));
}

const hueText = (n, count) => `rgb(${hue(n, count).join(" ")})`;

/* The paper, tinted by heads: shares are one number from 0 to 1 a head. */
function mixture(shares) {
  const total = sumOf(shares) || 1, strength = 0.65 * Math.sqrt(largest(shares));
  const mixed = [0, 1, 2].map(part =>
    sumOf(shares.map((share, n) => share * hue(n, shares.length)[part])) / total);
  return palette.paper.map((from, part) => Math.round(from + (mixed[part] - from) * strength));
}
