"use strict";
/* Numbers: sums, ranks and triangles, and how they are written. */

function sumOf(values) {
  return values.reduce((sum, value) => sum + value, 0);
}

/* The largest size of a number, with either sign. */
function largest(values) {
  return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

/* Items in order, the one of which `of` says most first. */
function ranked(items, of) {
  return Array.from(items).sort((a, b) => of(b) - of(a));
}

/* Where entry [i, j], j ≤ i, stands in a triangle packed row by row. */
function triangle(i, j) {
  return i * (i + 1) / 2 + j;
}

/* Row i of a triangle. */
function rowOf(values, i) {
  return values.subarray(triangle(i, 0), triangle(i + 1, 0));
}

/* A triangle, row by row: `change(row, i)` of each. */
function byRows(values, change) {
  const result = new Float64Array(values.length);
  for (let i = 0; triangle(i, 0) < values.length; i++) {
    result.set(change(rowOf(values, i), i), triangle(i, 0));
  }
  return result;
}

/* Each row less its mean over its sources: the same pattern, and the level is out of sight. */
function levelled(scores) {
  return byRows(scores, row => {
    const mean = sumOf(row) / row.length;
    return row.map(value => value - mean);
  });
}

/* 0.123 and −1.234: three digits after the point, unless told otherwise. */
function fixed(value, digits = 3) {
  return value.toFixed(digits).replace(/^-(?=.*[1-9])/, "−").replace(/^-/, "");
}

/* A number as it is, with a minus that is one. */
function plain(value) {
  return String(value).replace("-", "−");
}

function signed(value, digits = 3) {
  const text = fixed(value, digits);
  return text.startsWith("−") ? text : `+${text}`;
}

function integer(value) {
  return value.toLocaleString("en-US");
}
