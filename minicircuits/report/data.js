"use strict";
/* What the page was given: JSON in the document, and arrays in it as 16-bit integers. */

const page = JSON.parse(document.getElementById("data").textContent);

/* A packed array as one Float32Array for each row of its first axis. */
function unpack({shape, scale, data}) {
  const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const size = shape[0] ? bytes.length / 2 / shape[0] : 0;
  return scale.map((step, row) => Float32Array.from(
    {length: size}, (_, n) => step * view.getInt16(2 * (row * size + n), true)));
}

/* The same, when it is first asked for. */
function unpacked(packed) {
  let rows;
  return () => (rows ??= unpack(packed));
}

/* Where entry [i, j], j ≤ i, stands in a triangle packed row by row. */
function triangle(i, j) {
  return i * (i + 1) / 2 + j;
}

const words = new Map(page.vocabulary.map(([id, text, newline]) => [id, {text, newline}]));

/* A token in visible characters, on one line. */
function word(id) {
  return words.get(id).text;
}

/* A token as it runs in a text: its spaces are spaces, its line ends end lines. */
function running(id) {
  const {text, newline} = words.get(id);
  const spaced = text === "(empty)" ? text : text.replaceAll("␣", " ");
  return newline ? spaced.replaceAll("\\n", "↵\n") : spaced;
}

function headName([layer, head]) {
  return `${layer}.${head}`;
}
