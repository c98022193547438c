/* One score of a head as a sum over pairs of paths, one on either side: why it looks there. */

const SOURCES_OFFERED = 8;

/* The source that is chosen, or the one at which the head looks most. */
function sourceOf({text, head, place, source}) {
  const row = rowOf(texts[text].views.pattern()[head], place);
  return source !== null && source <= place ? source : row.indexOf(largest(row));
}

/* token→0.3, a side of a term, as `ScoreTerm.label` has it. */
const sideName = ({source, heads}) => [source, ...heads.map(headName)].join("→");

function scoreLedger(place) {
  const own = {level: true, term: null}, strip = tokenStrip("score-strip");
  const title = el("p", {class: "head-title"});
  const sources = roving(el("div", {class: "candidates", role: "group", "aria-label": "source"}));
  const bars = sumOfBars("term", ["query side · key side", "adds to the score",
                                   "heads on which side, and the tokens that they read"], {
    chosen: () => own.term, look: colorStrip, choose: name => { own.term = name; bars.choose(); }});
  const {open, inPython} = figureOnText(place, "parts", "Path Expansion of Attention Scores QK Circuit",
    choice("the score", [[true, "less its row’s mean"], [false, "as it is"]], true,
           level => { own.level = level; show(); }),
    el("div", {class: "ledger"},
      el("div", {}, strip.element, el("p", {class: "small"}, "source, with its attention"), sources),
      el("div", {class: "terms"}, title, bars.element)));

  const row = () => rowOf(shownText().views.pattern()[state.head], state.place);
  const level = (scores, i, j) => (own.level ? levelled(scores) : scores)[triangle(i, j)];

  /* What the two sides of a term read; or where the head looks. */
  function colorStrip(term) {
    const sides = term?.shares?.();
    if (!sides) strip.color(shownText().tokens.map((_, j) => row()[j] ?? 0), 1);
    else strip.color(shownText().tokens.map((_, j) => sumOf(sides.map(side => side[j]))));
  }

  function oneByOne(i, j) {
    return shownText().terms(shownHead(), i, j, own.level).map(({query, key, value, shares: made}) => {
      const sides = [query, key], shares = once(made);
      const [kind] = PARTS[Number(query.heads.length > 0) + 2 * (key.heads.length > 0)].slice(1);
      return {name: sides.map(sideName).join(" · "), value,
              shares: () => shares().filter((_, n) => !sides[n].bias),
              sources: all => [kind, ...sides.flatMap((side, n) => !all && !side.heads.length ? []
                : [n ? "; key reads " : "; query reads ",
                   ...side.bias ? ["the bias b_O"] : tokenShares(shares()[n], shownText().tokens, all)])]};
    });
  }

  const byKind = (i, j) => shownText().parts(headName(shownHead())).map((part, n) =>
    ({name: PARTS[n][1], value: level(part, i, j), sources: () => []}));

  function offered(j) {
    const most = ranked(row().keys(), j => row()[j]).slice(0, SOURCES_OFFERED);
    return [...new Set([...most, j])].map(source => candidate(
      [mono(shownText().tokens[source]), el("sub", {}, source)], row()[source], source === j, () => select({source})));
  }

  function show() {
    const [layer, h] = shownHead(), i = state.place, {tokens, terms: alive, splitHeads, scores} = shownText();
    const count = alive && shownText().countTerms([layer, h]), few = count <= MOST_TERMS;
    const name = headName([layer, h]), can = alive || splitHeads?.includes(name);
    if (!open(can, few ? "" : !can ? `The scores of head ${name} were not taken apart.`
      : `${alive ? `This score has ${integer(count)} terms, and a page adds up ${integer(MOST_TERMS)} at most`
                 : "The model does not run in this page"}: here are its terms by kind.`)) return;
    const j = sourceOf(state);
    title.replaceChildren(`head ${`${name} ${roleOf(state.head)}`.trim()}: why does ${i} `, mono(tokens[i]),
      ` look at ${j} `, mono(tokens[j]), "? It has ", digits(fixed(row()[j])), " of the attention");
    sources.replaceChildren(...offered(j));
    const whole = `the model’s score${own.level ? ", less the mean" : ""}`;
    bars.show(few ? oneByOne(i, j) : byKind(i, j), scores ? [[whole, level(scores([layer, h]), i, j)]] : []);
    strip.mark(i, j, true);
    const of = part => `${part}[0, ${i}, ${j}]${own.level ? ` - ${part}[0, ${i}, :${i + 1}].mean()` : ""}`;
    const given = `(weights, tokens, acts.pattern, ${layer}, ${h}, acts.norms)`;
    inPython(few ? [`terms = mc.expand_scores${given}`,
                       `shares = {term.label: ${of("term.scores")} for term in terms}`]
                    : [`split = mc.split_scores${given}`,
                       `shares = {kind: ${of("part")} for kind, part in split._asdict().items()}`]);
  }

  byId("score-ledger").hidden = false;
  follow(["text", "place", "source", "head", "run"], show);
}
