/* A figure, taken away: its drawings and heat maps as SVG, its numbers as TSV. */

const LOOKS = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "opacity",
               "font-family", "font-size", "font-weight", "text-anchor", "visibility"];
const WAYS = {svg: ["svg, .heat", svgOf], tsv: ["table, .entry, .heat", tsvOf]};

function takeAway(figure) {
  const save = async kind => {
    const name = figure.querySelector(".see").textContent.replace(/[^\w.]+/g, "-");
    const href = URL.createObjectURL(new Blob([await WAYS[kind][1](figure)]));
    el("a", {href, download: `${name}.${kind}`}).click();
    setTimeout(() => URL.revokeObjectURL(href), 1000);
  };
  const kinds = Object.keys(WAYS).filter(kind => figure.querySelector(WAYS[kind][0]));
  figure.append(roving(el("p", {class: "take"}, "take away:", kinds.map(kind =>
    button(kind.toUpperCase(), () => save(kind))))));
}

/* The pictures that are shown and the words beside them, as [it, box, style]; and the box of all. */
function layout(figure) {
  const boxOf = part => part.getBoundingClientRect(), range = document.createRange();
  const shown = [...figure.querySelectorAll("svg, canvas")].filter(({clientWidth}) => clientWidth);
  const around = shown.map(picture => boxOf(picture.closest(".map, div")));
  const [x, y] = ["left", "top"].map(side => Math.min(...around.map(box => box[side])) - 8);
  const [right, bottom] = ["right", "bottom"].map(side => Math.max(...around.map(box => box[side])) + 8);
  const words = [...figure.querySelectorAll(":not(svg *)")].flatMap(parent => [...parent.childNodes]
    .filter(node => node.nodeType === Node.TEXT_NODE).map(node => {
      range.selectNode(node);
      return [node.data, boxOf(range), getComputedStyle(parent)];
    })).filter(([, box, {visibility}]) => box.width && visibility === "visible" && box.left > x
                                          && box.right < right && box.top > y && box.bottom < bottom);
  return {x, y, width: right - x, height: bottom - y, pictures: shown.map(picture => [picture, boxOf(picture)]),
          words, paper: getComputedStyle(document.body).backgroundColor};
}

function svgOf(figure) {
  const {x, y, width, height, pictures, words, paper} = layout(figure);
  const all = root => [root, ...root.querySelectorAll("*")];
  const copies = pictures.map(([picture, {x, y, width, height}]) => {
    const box = {x, y, width, height, overflow: "visible"};
    if (picture.matches("canvas")) {                 // which this page may not load; the file may
      return svg("image", {...box, "data-href": picture.toDataURL(), preserveAspectRatio: "none",
                           style: {imageRendering: "pixelated"}});
    }
    const copy = fill(picture.cloneNode(true), box, []), parts = all(copy);
    all(picture).map(element => getComputedStyle(element)).forEach((style, n) =>
      LOOKS.forEach(look => { parts[n].style[look] = style[look]; }));
    return copy;
  });
  const texts = words.map(([text, {x, y, height}, {color, fontFamily, fontSize, fontWeight}]) => svg("text",
    {x, y: y + 0.75 * height, style: {fill: color, fontFamily, fontSize, fontWeight, whiteSpace: "pre"}}, text));
  return new XMLSerializer().serializeToString(svg("svg", {viewBox: [x, y, width, height].join(" "), width, height},
    svg("rect", {x, y, width, height, fill: paper}), copies, texts)).replaceAll(" data-href=", " href=");
}

/* Every table as it is shown, and every heat map whole. */
function tsvOf(figure) {
  const number = text => /^[+−]?[\d.,e−]+$/.test(text) ? text.replaceAll("−", "-").replaceAll(",", "") : text;
  const cell = cell => [...cell.querySelectorAll(".tinted")].map(({title}) => title).join("; ")
    || number(cell.textContent.replace(/\s+/g, " ").trim());
  const rows = block => block.numbers?.() ?? [...block.querySelectorAll("caption, tr:not([hidden]), .entry")]
    .map(row => row.matches("caption") ? [cell(row)] : [...row.querySelectorAll(":scope > :not(.track)")].map(cell));
  return [...figure.querySelectorAll("table, .waterfall, .heat canvas")].filter(({clientWidth}) => clientWidth)
    .map(block => rows(block).map(row => `${row.join("\t")}\n`).join("")).join("\n");
}
