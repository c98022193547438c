"use strict";
/* Python that gives the numbers of a figure, on the text and with the heads that are shown. */

/* section: the paper's. show(lines) writes the calls, after those that make `acts`. */
function inPython(section) {
  const code = el("code", {});
  return {
    element: el("details", {class: "source"}, el("summary", {}, "Paper: ", el("cite", {}, section),
      " · The same numbers in Python"), el("pre", {}, code)),
    show(lines) {
      const {off, frozen} = state.run, acts = "acts = mc.forward(weights, tokens)";
      const heads = off.map(name => `(${name.replace(".", ", ")})`).join(", ");
      const without = off.length ? [`weights = mc.without_heads(weights, [${heads}])`] : [];
      code.textContent = ["import minicircuits as mc       # weights: those of this page's model",
        `tokens = [[${texts[state.text].tokens.join(", ")}]]`,
        ...frozen ? [acts, ...without] : [...without, acts], ...lines].join("\n");
    }};
}
