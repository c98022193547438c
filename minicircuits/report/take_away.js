"use strict";
/* A figure, taken away: its drawings as SVG, its heat maps as PNG, its numbers as TSV. */

const DRAWN = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray",
               "opacity", "font-family", "font-size", "font-weight", "text-anchor", "visibility"];
const WAYS = [["svg", "svg", svgOf], ["png", ".heat", pngOf], ["tsv", "table, .entry, .heat", tsvOf]];

function takeAway(figure) {
  const save = async (kind, make) => {
    const href = URL.createObjectURL(new Blob([await make(figure)]));
    const name = figure.querySelector(".see").textContent.replace(/[^\w.]+/g, "-");
    el("a", {href, download: `${name}.${kind}`}).click();
    setTimeout(() => URL.revokeObjectURL(href), 1000);
  };
  figure.append(el("p", {class: "take"}, "take away:",
    WAYS.filter(([, what]) => figure.querySelector(what)).map(([kind, , make]) =>
      el("button", {type: "button", onclick: () => save(kind, make)}, kind.toUpperCase()))));
}

/* The shown pictures of a kind and the words beside them, as [it, box, style]; and the box of all. */
function layout(figure, kind) {
  const range = document.createRange(), walker = document.createTreeWalker(figure, NodeFilter.SHOW_TEXT);
  const pictures = [...figure.querySelectorAll(kind)].filter(({clientWidth}) => clientWidth);
  const around = pictures.map(picture => picture.closest(".map, div").getBoundingClientRect());
  const x = Math.min(...around.map(({left}) => left)) - 8, y = Math.min(...around.map(({top}) => top)) - 8;
  const width = Math.max(...around.map(({right}) => right)) + 8 - x;
  const height = Math.max(...around.map(({bottom}) => bottom)) + 8 - y, words = [];
  while (walker.nextNode()) {
    range.selectNodeContents(walker.currentNode);
    const box = range.getBoundingClientRect(), style = getComputedStyle(walker.currentNode.parentElement);
    const inside = box.left > x && box.right < x + width && box.top > y && box.bottom < y + height;
    if (box.width && inside && style.visibility === "visible" && !walker.currentNode.parentElement.closest("svg")) {
      words.push([walker.currentNode.data, box, style]);
    }
  }
  return {x, y, width, height, words, paper: getComputedStyle(document.body).backgroundColor,
          pictures: pictures.map(picture => [picture, picture.getBoundingClientRect()])};
}

function svgOf(figure) {
  const {x, y, width, height, pictures, words, paper} = layout(figure, "svg");
  const copies = pictures.map(([picture, box]) => {
    const copy = picture.cloneNode(true), all = root => [root, ...root.querySelectorAll("*")], to = all(copy);
    all(picture).map(element => getComputedStyle(element)).forEach((style, n) =>
      DRAWN.forEach(name => { to[n].style[name] = style[name]; }));
    return fill(copy, {x: box.x, y: box.y, width: box.width, height: box.height, overflow: "visible"}, []);
  });
  const keys = [...figure.querySelectorAll(".key i")].map(key => {
    const box = key.getBoundingClientRect(), style = getComputedStyle(key);
    return svg("line", {x1: box.left, x2: box.right, y1: box.y, y2: box.y, stroke: style.borderTopColor,
      "stroke-width": style.borderTopWidth, "stroke-dasharray": {dashed: "5 3", dotted: "2 3"}[style.borderTopStyle]});
  });
  const texts = words.map(([text, box, {color, fontFamily, fontSize, fontWeight}]) =>
    svg("text", {x: box.x, y: box.y + 0.75 * box.height, style: {
      fill: color, fontFamily, fontSize, fontWeight, whiteSpace: "pre"}}, text));
  return new XMLSerializer().serializeToString(svg("svg", {viewBox: [x, y, width, height].join(" "), width, height},
    svg("rect", {x, y, width, height, fill: paper}), copies, keys, texts));
}

/* Twice as fine as on the screen. */
function pngOf(figure) {
  const {x, y, width, height, pictures, words, paper} = layout(figure, "canvas");
  const whole = el("canvas", {width: 2 * width, height: 2 * height}), pen = whole.getContext("2d");
  Object.assign(pen, {fillStyle: paper, imageSmoothingEnabled: false, textBaseline: "middle"});
  pen.setTransform(2, 0, 0, 2, -2 * x, -2 * y);
  pen.fillRect(x, y, width, height);
  pictures.forEach(([picture, box]) => pen.drawImage(picture, box.x, box.y, box.width, box.height));
  words.forEach(([text, box, {color, fontWeight, fontSize, fontFamily}]) =>
    Object.assign(pen, {fillStyle: color, font: `${fontWeight} ${fontSize} ${fontFamily}`}).fillText(text, box.x, box.y + box.height / 2));
  return new Promise(done => whole.toBlob(done));
}

/* Every table as it is shown, and every heat map whole. */
function tsvOf(figure) {
  const number = text => /^[+−]?[\d.,e−]+$/.test(text) ? text.replaceAll("−", "-").replaceAll(",", "") : text;
  const cell = cell => [...cell.querySelectorAll(".tinted")].map(({title}) => title).join("; ")
    || number(cell.textContent.replace(/\s+/g, " ").trim());
  const rows = block => block.numbers?.() ?? [...block.querySelectorAll("caption, tr, .entry")]
    .filter(row => !row.hidden && !row.matches(".axis"))
    .map(row => (row.matches("caption") ? [row] : [...row.children]).filter(part => !part.matches(".track")).map(cell));
  return [...figure.querySelectorAll("table, .waterfall, .heat canvas")].filter(({clientWidth}) => clientWidth)
    .map(block => rows(block).map(row => `${row.join("\t")}\n`).join("")).join("\n");
}
