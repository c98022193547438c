/* A square of destinations (rows) by sources (columns), lower triangle; canvas, one pixel each. */

const FEW = 24;               // tokens whose names fit the edges

/* Colors `values`, a triangle, in a square; `limit` is the value of full color. */
function paintTriangle(canvas, size, values, limit, power) {
  canvas.width = canvas.height = size;
  const image = new ImageData(size, size), pixels = image.data, table = shades(power);
  const scale = limit ? 255 / limit : 0;
  for (let i = 0, n = 0; n < values.length; i++) {
    for (let j = 0, at = 4 * i * size; j <= i; j++, n++) {
      const color = 4 * (255 + Math.round(scale * values[n]));
      for (let part = 0; part < 4; part++) pixels[at++] = table[color + part];
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/* What colors mean: a strip from the least to the most, with its numbers, and words. */
function colorScale(words) {
  const strip = el("canvas", {width: 81, height: 1}), low = el("span", {}), high = el("span", {});
  return {
    element: el("p", {class: "scale"}, low, strip, high, el("span", {}, words)),
    draw(least, most, power, noise = 0) {
      const pen = strip.getContext("2d"), digits = Math.max(-least, most) < 10 ? 2 : 0;
      for (let n = 0; n < 81; n++) {
        const value = least + n / 80 * (most - least);
        pen.fillStyle = shadeText(Math.abs(value) <= noise ? 0 : value / most, power);
        pen.fillRect(n, 0, 1, 1);
      }
      [low.textContent, high.textContent] = [least, most].map(value => fixed(value, digits));
    },
  };
}

/* A heat map to point into. `point(i, j)` is called under the pointer and for the arrow keys,
   `lock(i, j)` for clicks and Enter, `leave()` when the pointer goes. Where it `says` what it
   shows, its scale stands below. */
function heatMap(label, {point, lock, leave, says = null}) {
  const canvas = el("canvas", {});
  const row = el("i", {class: "row"}), column = el("i", {class: "column"});
  const edges = el("div", {class: "edges"}), colors = says && colorScale(says);
  let size = 1, at = [0, 0], named = null;

  const cell = (i, j) => [within(i, size - 1), within(j, within(i, size - 1))];       // the nearest there is
  const under = ({clientX, clientY}) => {
    const {left, top, width, height} = canvas.getBoundingClientRect();
    return cell(Math.floor((clientY - top) / height * size), Math.floor((clientX - left) / width * size));
  };
  const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
  const heat = el("div", {
    class: "heat", tabindex: 0, role: "application", "aria-label": `${label}. Arrow keys move.`,
    onpointermove: event => point(...under(event)),
    onpointerleave: leave,
    onclick: event => lock(...under(event)),
    onkeydown: event => {
      if (event.key === "Enter") lock(...at);
      else if (event.key in step) point(...cell(...step[event.key].map((by, n) => at[n] + by)));
      else return;
      event.preventDefault();
    }}, canvas, row, column, edges);

  /* Names of tokens, below and to the left: all of few, of many those pointed at. */
  function name(names) {
    if (names.join("\n") === named?.join("\n")) return;
    named = names;
    element.classList.add("named");
    edges.classList.toggle("many", size > FEW);
    edges.style.fontSize = `${size > FEW ? 10 : Math.min(10, 190 / size)}px`;
    edges.replaceChildren(...["across", "down"].flatMap(side => names.map((text, n) =>
      el("span", {class: side, style: {[side === "down" ? "top" : "left"]:
        `${100 * (n + 0.5) / size}%`}}, text))));
  }
  const element = el("div", {class: "map"}, heat, colors?.element);

  return {
    element,
    /* power: as for `shade`; names: of the tokens, which stand at the edges where it `says` more. */
    draw(names, values, limit, power) {
      size = names.length;
      paintTriangle(canvas, size, values, limit, power);
      colors?.draw(values.some(value => value < 0) ? -limit : 0, limit, power);
      canvas.numbers = () => [[label, ...names], ...names.map((name, i) => [name, ...rowOf(values, i)])];
      if (says) name(names);
    },
    mark(i, j) {
      at = [i, j ?? Math.min(at[1], i)];
      row.hidden = i == null;
      column.hidden = j == null;
      row.style.top = `${100 * i / size}%`;
      column.style.left = `${100 * (j ?? 0) / size}%`;
      row.style.height = column.style.width = `${100 / size}%`;
      [...edges.children].forEach((span, n) =>
        span.classList.toggle("at", n < size ? n === j : n - size === i));
    },
  };
}
