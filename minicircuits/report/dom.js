"use strict";
/* Elements. Text is only ever set as text, never as markup. */

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (name.startsWith("aria-")) element.setAttribute(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter(child => child != null));
  return element;
}

function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function byId(id) {
  return document.getElementById(id);
}

/* A button that acts. */
function button(content, act, attributes) {
  return el("button", {type: "button", onclick: act, ...attributes}, content);
}

/* A number that counts, in a text. */
function digits(text) {
  return el("b", {class: "number"}, text);
}

/* Column titles, and rows: of cells, or elements already. Numbers stand right. */
function table(titles, rows, caption = null, look = null) {
  return el("div", {class: "wide"}, el("table", {class: look},
    caption && el("caption", {}, caption),
    el("thead", {}, el("tr", {}, titles.map(title => el("th", {scope: "col"}, title)))),
    el("tbody", {}, rows.map(row => Array.isArray(row) ? el("tr", {}, row.map((cell, n) =>
      n ? el("td", {}, cell) : el("th", {scope: "row"}, cell))) : row))));
}

let choices = 0;

/* One of several, as native radio buttons: `options` are pairs [value, label]. */
function choice(legend, options, chosen, change) {
  const name = `choice-${choices++}`;
  return el("fieldset", {class: "choice"}, el("legend", {}, legend),
    options.map(([value, label]) => el("label", {},
      el("input", {type: "radio", name, value, checked: value === chosen,
                   onchange: () => change(value)}),
      el("span", {}, label))));
}

/* A field to search tokens in: `act` is given what is searched, as tokens are shown, and the tokens
   that have it, the shortest first. */
function tokenSearch(label, act) {
  return el("input", {type: "search", placeholder: `${label} …`, "aria-label": label, oninput: event => {
    const wanted = event.target.value.replaceAll(" ", "␣");
    const found = page.vocabulary.filter(([, name]) => wanted && name.includes(wanted));
    act(wanted, ranked(found, ([, name]) => -name.length).map(([id]) => id));
  }});
}

/* Other buttons in a group; the chosen one has the focus, where one of the old, or of `others`, had. */
function refill(group, buttons, others = group) {
  const held = [group, others].some(element => element.contains(document.activeElement));
  group.replaceChildren(...buttons);
  if (held) (group.querySelector("[aria-pressed=true]") ?? buttons[0])?.focus();
}

/* One of these buttons has the Tab key's stop; arrows go from one to the next. */
function roving(group, buttons) {
  const stop = at => buttons.forEach(button => { button.tabIndex = button === at ? 0 : -1; });
  stop(buttons[0]);
  group.addEventListener("focusin", event => buttons.includes(event.target) && stop(event.target));
  group.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    const to = step && buttons[buttons.indexOf(document.activeElement) + step];
    if (!to) return;
    to.focus();
    event.preventDefault();
  });
}

/* Attributes of what is no button, and acts like one. */
function pressable(act) {
  return {role: "button", tabindex: 0, onclick: act, onkeydown: event => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    act();
  }};
}

/* A token as code, cut by the style sheet where it is long. */
function mono(id) {
  return el("code", {title: word(id)}, word(id));
}

/* A bar as long as a share of the whole width, blue if negative. */
function bar(share, style = {}) {
  return el("i", {class: share < 0 ? "bar less" : "bar",
                  style: {width: `${Math.min(100, 100 * Math.abs(share))}%`, ...style}});
}
