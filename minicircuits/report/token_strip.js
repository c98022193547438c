/* The text that is shown, token by token, each colored by a number (never so much that it hides its
   words); the pointer, a click and keys choose one. */

/* `hover(i)` and `hover(null)` follow the pointer; `choose(i, moved)` is a click, Enter or an arrow. */
function tokenStrip(id, {choose = place => select({place}), hover = () => {}, release = () => {}} = {}) {
  let spans = [], chosen = 0, color = () => palette.paper;
  const placeOf = ({target}) => target.closest(".token") ? spans.indexOf(target.closest(".token")) : null;
  const element = el("div", {
    id, class: "tokens", tabindex: 0, role: "listbox", "aria-label": "the text. Arrow keys move.",
    onpointerover: event => hover(placeOf(event)),
    onpointerleave: () => hover(null),
    onclick: event => placeOf(event) !== null && choose(placeOf(event)),
    onkeydown: event => {
      const to = {ArrowLeft: chosen - 1, ArrowRight: chosen + 1, Home: 0, End: spans.length - 1};
      if (event.key in to) choose(within(to[event.key], spans.length - 1), true);
      else if (event.key === "Enter" || event.key === " ") choose(chosen);
      else if (event.key === "Escape") release();
      else return;
      event.preventDefault();
    }});
  const paint = () => spans.forEach((span, i) => tint(span, color(i)));

  follow(["text"], () => {
    const {tokens, written = Infinity} = shownText();      // from which place on the model wrote it
    spans = tokens.map((token, i) => el("span", {
      class: i < written ? "token" : "token written", role: "option", id: `${id}-${i}`,
      title: `${i} ${word(token)}`}, running(token)));
    element.replaceChildren(...spans);
  });
  follow(["colors"], paint);

  return {
    element,
    /* of(i): the color of a token. */
    paint(of) {
      color = of;
      paint();
    },
    /* values: a number a token; `most` is that of full color. */
    color(values, most = largest(values)) {
      this.paint(i => shade(most ? 0.65 * values[i] / most : 0));
    },
    mark(place, other, locked) {
      chosen = place;
      spans.forEach((span, i) => {
        span.classList.toggle("here", i === place);
        span.classList.toggle("there", i === other);
        span.classList.toggle("locked", i === place && locked);
        span.setAttribute("aria-selected", i === place);
      });
      element.setAttribute("aria-activedescendant", `${id}-${place}`);
    },
  };
}
