/* Numbers: sums, ranks and triangles, and how they are written. */

const sumOf = values => values.reduce((sum, value) => sum + value, 0);

/* The largest size of a number, with either sign. */
const largest = values => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

/* Items in order, the one of which `of` says most first. */
const ranked = (items, of) => Array.from(items).sort((a, b) => of(b) - of(a));

/* The nearest number from 0 to the most. */
const within = (value, most) => Math.max(0, Math.min(value, most));

/* Where entry [i, j], j ≤ i, stands in a triangle packed row by row. */
const triangle = (i, j) => i * (i + 1) / 2 + j;

/* Row i of a triangle; and its first rows, so many of them. */
const rowOf = (values, i) => values.subarray(triangle(i, 0), triangle(i + 1, 0));
const rowsOf = (values, count) => Array.from({length: count}, (_, i) => rowOf(values, i));

/* A triangle, row by row: `change(row, i)` of each. */
function byRows(values, change) {
  const result = new Float64Array(values.length);
  for (let i = 0; triangle(i, 0) < values.length; i++) {
    result.set(change(rowOf(values, i), i), triangle(i, 0));
  }
  return result;
}

/* Each row less its mean over its sources: the same pattern, and the level is out of sight. */
const levelled = scores => byRows(scores, row => {
  const mean = sumOf(row) / row.length;
  return row.map(value => value - mean);
});

/* 0.123 and −1.234: three digits after the point, unless told otherwise. */
const fixed = (value, digits = 3) => value.toFixed(digits).replace(/^-(?=.*[1-9])/, "−").replace(/^-/, "");

/* A number as it is, with a minus that is one. */
const plain = value => String(value).replace("-", "−");

const signed = (value, digits = 3) => fixed(value, digits).replace(/^(?!−)/, "+");
const integer = value => value.toLocaleString("en-US");
