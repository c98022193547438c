/* Lines and axes as SVG. A scale is a function from numbers to pixels. */

const scale = ([from, to], [start, end]) => value =>
  start + (to === from ? 0 : (value - from) / (to - from)) * (end - start);

/* Round numbers from one end to the other, at most about `count` of them. */
function ticks([from, to], count = 4) {
  const rough = (to - from) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(factor => factor * power >= rough);
  const first = Math.ceil(from / step), last = Math.floor(to / step + 1e-9);
  return Array.from({length: last - first + 1}, (_, n) => Number(((first + n) * step).toPrecision(9)));
}

/* A piece of a line, for a legend. */
function swatch(look, width) {
  return svg("svg", {class: "swatch", viewBox: "0 0 20 10"},
    svg("line", {class: look, x1: 0, x2: 20, y1: 5, y2: 5, "stroke-width": width}));
}

/* A line chart. lines: {name, values, look}; `mark` is {x, text} or nothing; `units` are the words at
   the axes, across and up. */
function lineChart({xs, lines, range, label, mark, units: [unit, up]}) {
  const width = 460, height = 204, left = 38, right = 18, top = 24, bottom = 28;
  const x = scale([0, xs.at(-1)], [left, width - right]);
  const y = scale(range, [height - bottom, top]);
  const grid = ticks(range).map(value => [
    svg("line", {class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value)}),
    svg("text", {x: left - 5, y: y(value) + 4, "text-anchor": "end"}, plain(value))]);
  const steps = ticks([0, xs.at(-1)], 5).map(value =>
    svg("text", {x: x(value), y: height - 12, "text-anchor": "middle"}, integer(value)));
  const axes = [svg("text", {x: 2, y: 11}, up),
                svg("text", {x: width, y: height, "text-anchor": "end"}, `${unit} →`)];
  const vertical = mark && [
    svg("line", {class: "mark", x1: x(mark.x), x2: x(mark.x), y1: top, y2: height - bottom}),
    svg("text", {class: "mark", x: x(mark.x) + 4, y: top + 9}, mark.text)];
  const pointer = svg("line", {class: "pointer", y1: top, y2: height - bottom});
  const picture = svg("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label},
    axes, grid, steps, vertical, lines.map(line =>
      svg("path", {class: `line ${line.look}`, d: `M${
        line.values.map((value, n) => `${x(xs[n]).toFixed(1)} ${y(value).toFixed(1)}`).join("L")}`})), pointer);
  const keys = lines.map(line => el("span", {class: "key"}, swatch(`line ${line.look}`), `${line.name} `, digits()));
  const at = el("span", {class: "key"});
  const show = n => {
    keys.forEach((key, k) => { key.lastChild.textContent = fixed(lines[k].values[n], 2); });
    at.textContent = `${unit} ${integer(xs[n])}`;
    fill(pointer, {x1: x(xs[n]), x2: x(xs[n])}, []);
  };
  picture.addEventListener("pointermove", event => {
    const box = picture.getBoundingClientRect(), wanted = (event.clientX - box.left) / box.width * width;
    show(ranked(xs.keys(), n => -Math.abs(x(xs[n]) - wanted))[0]);
  });
  show(xs.length - 1);
  return el("div", {class: "chart"}, el("p", {class: "keys"}, keys, at), picture);
}
