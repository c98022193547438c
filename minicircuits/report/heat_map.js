"use strict";
/* A square of destinations (rows) by sources (columns), lower triangle; canvas, one pixel each. */

/* Colors `values`, a packed triangle of `rows` rows; `limit` is the value of full color. */
function paintTriangle(canvas, size, rows, values, limit, power) {
  canvas.width = canvas.height = size;
  const image = new ImageData(size, size), pixels = image.data, table = shades(power);
  const scale = limit ? 255 / limit : 0;
  for (let i = 0, n = 0; i < rows; i++) {
    for (let j = 0, at = 4 * i * size; j <= i; j++, n++) {
      const color = 4 * (255 + Math.round(scale * values[n]));
      for (let part = 0; part < 4; part++) pixels[at++] = table[color + part];
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function largest(values) {
  let most = 0;
  for (const value of values) most = Math.max(most, Math.abs(value));
  return most;
}

/* A heat map to point into. `point(i, j)` is called under the pointer and for the arrow keys,
   `lock(i, j)` for clicks and Enter, `leave()` when the pointer goes. */
function heatMap(label, {point, lock = point, leave = () => {}}) {
  const canvas = el("canvas", {});
  const row = el("i", {class: "row"}), column = el("i", {class: "column"});
  let size = 1, at = [0, 0];

  const place = event => {
    const box = canvas.getBoundingClientRect();
    const cell = (from, length, position) =>
      Math.min(size - 1, Math.max(0, Math.floor((position - from) / length * size)));
    const i = cell(box.top, box.height, event.clientY);
    return [i, Math.min(i, cell(box.left, box.width, event.clientX))];
  };
  const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
  const element = el("div", {
    class: "heat", tabindex: 0, role: "application", "aria-label": `${label}. Arrow keys move.`,
    onpointermove: event => point(...place(event)),
    onpointerleave: () => leave(),
    onclick: event => lock(...place(event)),
    onkeydown: event => {
      if (event.key === "Enter") lock(...at);
      else if (event.key in step) {
        const i = Math.min(size - 1, Math.max(0, at[0] + step[event.key][0]));
        point(i, Math.min(i, Math.max(0, at[1] + step[event.key][1])));
      } else return;
      event.preventDefault();
    }}, canvas, row, column);

  return {
    element,
    draw(length, rows, values, limit, power) {
      size = length;
      paintTriangle(canvas, length, rows, values, limit, power);
    },
    mark(i, j) {
      at = [i, j ?? Math.min(at[1], i)];
      row.hidden = i == null;
      column.hidden = j == null;
      row.style.top = `${100 * i / size}%`;
      column.style.left = `${100 * (j ?? 0) / size}%`;
      row.style.height = column.style.width = `${100 / size}%`;
    },
  };
}
