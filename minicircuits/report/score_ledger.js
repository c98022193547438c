"use strict";
/* One score of a head as a sum over pairs of paths, one on either side: why it looks there. */

const SOURCES_OFFERED = 8;

/* The source that is chosen, or the one at which the head looks most. */
function sourceOf({text, head, place, source}) {
  if (source !== null && source <= place) return source;
  const row = texts[text].views.pattern()[head].subarray(triangle(place, 0), triangle(place + 1, 0));
  return row.indexOf(row.reduce((most, share) => Math.max(most, share)));
}

/* token→0.3, a side of a term, as `ScoreTerm.label` has it. */
function sideName({source, heads}) {
  return [source, ...heads.map(headName)].join("→");
}

function scoreLedger() {
  const own = {level: true, term: null}, text = () => texts[state.text];
  const head = () => page.shown_heads[state.head];
  let terms = [];
  const pattern = j => text().views.pattern()[state.head][triangle(state.place, j)];
  const level = (part, i, j) => (own.level ? levelled(part, text().tokens.length) : part)[triangle(i, j)];

  const strip = tokenStrip("the text", "score-strip", {choose: place => select({place})});
  const title = el("p", {class: "head-title"}), notice = el("p", {class: "small"});
  const sources = el("div", {class: "candidates", role: "group", "aria-label": "source"});
  roving(sources);
  const python = inPython("Path Expansion of Attention Scores QK Circuit");
  const bars = sumOfBars("term", ["query side · key side", "adds to the score",
                                   "heads on which side, and the tokens that they read"], {
    chosen: () => own.term, point: colorStrip,
    choose: ({name}) => { own.term = name === own.term ? null : name; bars.choose(); colorStrip(null); }});

  /* The text colored by what the two sides of a term read; or by where the head looks. */
  function colorStrip(term) {
    const sides = (term ?? terms.find(({name}) => name === own.term))?.shares?.();
    const sums = text().tokens.map((_, j) => sides ? sides.reduce((sum, side) => sum + side[j], 0)
      : j <= state.place ? pattern(j) : 0);
    const most = sides ? largest(sums) : 1;
    strip.color(j => most ? sums[j] / most : 0);
  }

  function oneByOne(i, j) {
    return text().terms(head(), i, j, own.level).map(({query, key, value, shares: made}) => {
      const sides = [query, key], shares = once(made), kind = Number(query.heads.length > 0) + 2 * (key.heads.length > 0);
      return {name: sides.map(sideName).join(" · "), value,
              shares: () => shares().filter((_, n) => !sides[n].bias),
              sources: all => [PARTS[kind][1], ...sides.flatMap((side, n) => !all && !side.heads.length ? []
                : [n ? "; key reads " : "; query reads ",
                   ...side.bias ? ["the bias b_O"] : tokenShares(shares()[n], text().tokens, all)])]};
    });
  }

  function byKind(i, j) {
    return text().parts(headName(head())).map((part, n) => ({
      name: PARTS[n][1], value: level(part, i, j), sources: () => []}))
      .sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  }

  function offered(j) {
    const ranked = Array.from({length: state.place + 1}, (_, j) => j).sort((a, b) => pattern(b) - pattern(a));
    return [...new Set([...ranked.slice(0, SOURCES_OFFERED), j])].map(source => el("button", {
      type: "button", "aria-pressed": String(source === j), onclick: () => select({source})},
      mono(text().tokens[source]), el("sub", {}, source), el("b", {class: "number"}, fixed(pattern(source)))));
  }

  function show() {
    const [layer, h] = head(), i = state.place, {tokens, terms: alive, splitHeads, scores} = text();
    const count = alive && text().countTerms(head()), few = count <= MOST_TERMS;
    elsewhere.hidden = Boolean(alive || splitHeads);
    figure.hidden = !alive && !splitHeads?.includes(headName(head()));
    notice.hidden = few || !elsewhere.hidden;
    notice.textContent = figure.hidden ? `The scores of head ${headName(head())} were not taken apart.`
      : `${alive ? `This score has ${integer(count)} terms, and a page adds up ${integer(MOST_TERMS)} at most`
                 : "The model does not run in this page"}: here are its terms by kind.`;
    if (figure.hidden) return;
    const j = sourceOf(state), named = `${headName(head())} ${roleOf(state.head)}`.trim();
    terms = few ? oneByOne(i, j) : byKind(i, j);
    title.replaceChildren(`head ${named}: why does ${i} `, mono(tokens[i]), ` look at ${j} `, mono(tokens[j]),
      "? It has ", el("b", {class: "number"}, fixed(pattern(j))), " of the attention");
    sources.replaceChildren(...offered(j));
    bars.show(terms, scores ? [[`the model’s score${own.level ? ", less the mean" : ""}`,
                                level(scores(head()), i, j)]] : []);
    strip.mark(i, j, true);
    colorStrip(null);
    const of = part => `${part}[0, ${i}, ${j}]${own.level ? ` - ${part}[0, ${i}, :${i + 1}].mean()` : ""}`;
    const given = `(weights, tokens, acts.pattern, ${layer}, ${h}, acts.norms)`;
    python.show(few ? [`terms = mc.expand_scores${given}`,
                       `shares = {term.label: ${of("term.scores")} for term in terms}`]
                    : [`split = mc.split_scores${given}`,
                       `shares = {kind: ${of("part")} for kind, part in split._asdict().items()}`]);
  }

  byId("score-ledger").hidden = false;
  const figure = el("div", {}, el("div", {class: "ledger"},
    el("div", {}, strip.element, el("p", {class: "small"}, "source, with its attention"), sources),
    el("div", {class: "terms"}, title, bars.element)), python.element);
  const elsewhere = elsewhereNotice("parts");
  byId("score-ledger-figure").append(el("div", {class: "controls"},
    choice("the score", [[true, "less its row’s mean"], [false, "as it is"]], true,
           chosen => { own.level = chosen; show(); })), elsewhere, notice, figure);
  follow(["text"], () => strip.write(text()));
  follow(["text", "place", "source", "head", "run"], show);
  dark.addEventListener("change", () => colorStrip(null));
}
