"use strict";
/* A text, token by token, each colored by a number (never so much that it hides its words); the pointer, a click and keys choose one. */

/* `hover(i)` and `hover(null)` follow the pointer; `choose(i)` is a click, Enter or an arrow. */
function tokenStrip(label, id, {hover = () => {}, choose, release = () => {}}) {
  let spans = [], chosen = 0;
  const index = event => {
    const span = event.target.closest("[data-place]");
    return span ? Number(span.dataset.place) : null;
  };
  const element = el("div", {
    id, class: "tokens", tabindex: 0, role: "listbox", "aria-label": `${label}. Arrow keys move.`,
    onpointerover: event => hover(index(event)),
    onpointerleave: () => hover(null),
    onclick: event => index(event) !== null && choose(index(event)),
    onkeydown: event => {
      const to = {ArrowLeft: chosen - 1, ArrowRight: chosen + 1, Home: 0, End: spans.length - 1};
      if (event.key in to) choose(Math.min(spans.length - 1, Math.max(0, to[event.key])), true);
      else if (event.key === "Enter" || event.key === " ") choose(chosen);
      else if (event.key === "Escape") release();
      else return;
      event.preventDefault();
    }});

  return {
    element,
    /* `written`: the place from which on the model wrote it. */
    write({tokens, written = Infinity}) {
      spans = tokens.map((token, i) => el("span", {
        class: i < written ? "token" : "token written", "data-place": i, role: "option", id: `${id}-${i}`,
        title: `${i} ${word(token)}`}, running(token)));
      element.replaceChildren(...spans);
    },
    paint(color) {
      spans.forEach((span, i) => tint(span, color(i)));
    },
    color(value) {
      this.paint(i => shade(0.65 * value(i)));
    },
    mark(place, other, locked) {
      chosen = place ?? chosen;
      spans.forEach((span, i) => {
        span.classList.toggle("here", i === place);
        span.classList.toggle("there", i === other);
        span.classList.toggle("locked", i === place && locked);
        span.setAttribute("aria-selected", i === place);
      });
      if (place != null) element.setAttribute("aria-activedescendant", `${id}-${place}`);
    },
  };
}
