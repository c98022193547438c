"use strict";
/* Elements and numbers. Text is only ever set as text, never as markup. */

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

/* 0.123 and −1.234: three digits after the point, unless told otherwise. */
function fixed(value, digits = 3) {
  return value.toFixed(digits).replace(/^-(?=.*[1-9])/, "−").replace(/^-/, "");
}

function signed(value, digits = 3) {
  const text = fixed(value, digits);
  return text.startsWith("−") ? text : `+${text}`;
}

function percent(share) {
  return `${fixed(100 * share, 1)} %`;
}

function integer(value) {
  return value.toLocaleString("en-US");
}

/* A table whose first row of cells are its column titles; numbers stand right. */
function table(titles, rows, caption) {
  return el("div", {class: "wide"}, el("table", {},
    caption && el("caption", {}, caption),
    el("thead", {}, el("tr", {}, titles.map(title => title ? el("th", {scope: "col"}, title) : el("td", {})))),
    el("tbody", {}, rows.map(cells => el("tr", {}, cells.map((cell, n) =>
      n ? el("td", {}, cell) : el("th", {scope: "row"}, cell)))))));
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

/* One of many, by name: a list, and buttons to the one before and the one after,
   for pointers (arrow keys do it in the list). `names()` may change; `go(n)` shows what is chosen. */
function pager(legend, names, change) {
  const go = n => {
    if (names().join("\n") !== written) {
      written = names().join("\n");
      list.replaceChildren(...names().map((name, n) => el("option", {value: n}, name)));
    }
    list.value = n;
    before.disabled = n === 0;
    after.disabled = n === list.length - 1;
  };
  let written = null;
  const step = (label, by) => el("button", {type: "button", tabindex: -1, "aria-label": `${label} ${legend}`,
    onclick: () => change(Number(list.value) + by)}, by < 0 ? "←" : "→");
  const before = step("previous", -1), after = step("next", 1);
  const list = el("select", {"aria-label": legend, onchange: () => change(Number(list.value))});
  return {go, element: el("fieldset", {class: "choice pager"}, el("legend", {}, legend),
                          before, list, after)};
}

/* A field to search tokens in; `act` is given what is searched, as tokens are shown. */
function tokenSearch(label, act) {
  return el("input", {type: "search", placeholder: `${label} …`, "aria-label": label,
                      oninput: event => act(event.target.value.replaceAll(" ", "␣"))});
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

function sameHead(one, other) {
  return Boolean(one && other) && headName(one) === headName(other);
}

/* Shows a head (layer, head) in all figures; and a path, if one is named. */
function chooseHead(head, path) {
  const place = page.shown_heads.findIndex(shown => sameHead(shown, head));
  select({...place < 0 ? {} : {head: place}, ...path && {path}});
}

/* Marks those of these elements, of these heads, that show the chosen head. */
function markChosen(elements, heads) {
  follow(["head"], () => elements.forEach((element, n) =>
    element.classList.toggle("chosen", sameHead(heads[n], page.shown_heads[state.head]))));
}

/* A link to a head's table. */
function headLink(head) {
  const text = headName(head);
  return byId("heads") ? el("a", {href: `#head-${head[0]}-${head[1]}`}, text) : el("b", {}, text);
}

/* A token as code, cut by the style sheet where it is long. */
function mono(id) {
  return el("code", {title: word(id)}, word(id));
}

/* A bar from 0 to a share of the whole width, blue if negative. */
function bar(share) {
  return el("i", {class: share < 0 ? "bar less" : "bar",
                  style: {width: `${Math.min(100, 100 * Math.abs(share))}%`}});
}
