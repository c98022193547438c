/* What figures about the text that is shown have in common. */

/* The text that is shown, by name: a list, and buttons to the one before and the one after. */
function textPager() {
  const step = (label, arrow, by) =>
    button(arrow, () => select({text: state.text + by}), {"aria-label": label, tabindex: -1});
  const before = step("previous text", "←", -1), after = step("next text", "→", 1);
  const list = el("select", {"aria-label": "text", onchange: () => select({text: Number(list.value)})});
  follow(["text"], () => {
    const names = texts.map(({name}) => name);
    if (list.textContent !== names.join("")) {
      list.replaceChildren(...names.map((name, n) => el("option", {value: n}, name)));
    }
    list.value = state.text;
    before.disabled = state.text === 0;
    after.disabled = state.text === texts.length - 1;
  });
  return el("fieldset", {class: "choice pager"}, el("legend", {}, "text"), before, list, after);
}

/* Fills `place` with a figure: controls, contents, and the paper's section. Returns two functions.
   open(can, said) is whether there is something to show; else it says which texts have the `key` that
   this one lacks, or what is said. inPython(lines) writes calls that give the same numbers, after those
   that make `acts` of the text that is shown, with the heads that are on; frozen scores are of all heads. */
function figureOnText(place, key, section, controls, ...contents) {
  const others = texts.flatMap(({name, [key]: has}, text) => has ? [button(name, () => select({text}))] : []);
  const elsewhere = el("p", {class: "buttons"}, "This text was not taken apart. Those that were: ", others);
  const notice = el("p", {class: "small"}), code = el("code", {});
  const figure = el("div", {}, contents, el("details", {class: "source"}, el("summary", {}, "Paper: ",
    el("cite", {}, section), " · The same numbers in Python"), el("pre", {}, code)));
  place.append(el("div", {class: "controls"}, controls), elsewhere, notice, figure);
  return {
    open(can, said) {
      elsewhere.hidden = Boolean(shownText()[key]);
      const {off, frozen} = state.run, without = `Off: ${off.join(", ")}${frozen ? "; patterns are frozen" : ""}.`;
      notice.textContent = [said, off.length && without].filter(Boolean).join(" ");
      notice.hidden = !elsewhere.hidden || !notice.textContent;
      figure.hidden = !elsewhere.hidden || !can;
      return !figure.hidden;
    },
    inPython(lines) {
      const {off, frozen} = state.run, acts = "acts = mc.forward(weights, tokens)";
      const heads = off.map(name => `(${name.replace(".", ", ")})`).join(", ");
      const without = off.length ? [`weights = mc.without_heads(weights, [${heads}])`] : [];
      code.textContent = ["import minicircuits as mc       # weights: those of this page's model",
        `tokens = [[${shownText().tokens.join(", ")}]]`,
        ...frozen ? [acts, ...key === "parts" ? [] : without] : [...without, acts], ...lines].join("\n");
    }};
}
