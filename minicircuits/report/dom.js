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

const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const byId = id => document.getElementById(id);

/* A button that acts. */
const button = (content, act, attributes) =>
  el("button", {type: "button", onclick: act, ...attributes}, content);

/* A number that counts, in a text. */
const digits = text => el("b", {class: "number"}, text);

/* Column titles, and rows: of cells, or elements already. Numbers stand right. */
function table(titles, rows, caption = null, look = null) {
  return el("div", {class: "wide"}, el("table", {class: look},
    caption && el("caption", {}, caption),
    el("thead", {}, el("tr", {}, titles.map(title =>
      title ? el("th", {scope: "col"}, title) : el("td", {})))),
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

/* One of a group's links and buttons has the Tab key's stop; arrows go from one to the next. What
   had the focus when the group was filled anew has it again: what reads the same, or stands there. */
function roving(group) {
  let held = null, place = 0;
  const parts = () => [...group.querySelectorAll("a, button, [role=button]")].filter(part => !part.disabled);
  const stop = at => parts().forEach(part => { part.tabIndex = part === at ? 0 : -1; });
  const settle = () => {
    const all = parts(), same = held && all.find(part => part === held || part.textContent === held.textContent);
    const at = same ?? all[Math.min(place, all.length - 1)];
    stop(held ? at : all.find(part => part.matches("[aria-pressed=true]")) ?? all[0]);
    if (held && !held.isConnected && document.activeElement === document.body) at?.focus({preventScroll: true});
  };
  group.addEventListener("focusin", ({target}) => {
    if (!parts().includes(target)) return;
    [held, place] = [target, parts().indexOf(target)];
    stop(target);
  });
  group.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    const to = step && event.target === held && parts()[parts().indexOf(held) + step];
    if (!to) return;
    to.focus();
    event.preventDefault();
  });
  new MutationObserver(settle).observe(group, {childList: true, subtree: true});
  settle();
  return group;
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
const mono = id => el("code", {title: word(id)}, word(id));

/* A bar as long as a share of the whole width, blue if negative. */
const bar = (share, style = {}) => el("i", {class: share < 0 ? "bar less" : "bar",
  style: {width: `${Math.min(100, 100 * Math.abs(share))}%`, ...style}});
