/* A text of the reader's own: written here, drawn at random, or written on by the model. */

/* What comes next has come before, after the same word. */
const EXAMPLES = ["The Dursleys had a son. The Dur", "def zorgle(x): return zorg",
                  "Keep the cold at bay, keep the mice at bay, keep the gulls at"];
const MOST_WRITTEN = 20000;       // characters of a text

/* Numbers from 0 to 1 that a seed decides (mulberry32). */
function randomNumbers(seed) {
  let state = seed | 0;
  return () => {
    state = state + 0x6d2b79f5 | 0;
    let n = Math.imul(state ^ state >>> 15, 1 | state);
    n = n + Math.imul(n ^ n >>> 7, 61 | n) ^ n;
    return ((n ^ n >>> 14) >>> 0) / 4294967296;
  };
}

/* A block of distinct random tokens, twice, after the start token where there is one. */
function randomBlocks(d_vocab, start, length, seed) {
  const others = Array.from({length: d_vocab}, (_, id) => id).filter(id => id !== start);
  const random = randomNumbers(seed);
  const block = Array.from({length: Math.min(length, others.length)}, () =>
    others.splice(Math.floor(random() * others.length), 1)[0]);
  return [...start === null ? [] : [start], ...block, ...block];
}

/* An id by its share, u from 0 to 1 choosing. */
function drawn(shares, u) {
  const id = shares.findIndex(share => (u -= share) < 0);
  return id < 0 ? shares.length - 1 : id;
}

/* The field, and what is beside it. Returns {write(text), restore(tokens)}: both make a text of the
   reader's own, which takes the place of the one before. */
function sentence(container, model, tokenizer) {
  const {start, d_vocab, n_ctx} = model.W, given = texts.length;
  const first = start === null ? [] : [start], longest = Math.min(n_ctx ?? 128, 128);
  let timer = false, frame = null, random;

  const field = el("textarea", {rows: 2, maxlength: MOST_WRITTEN, spellcheck: "false",
    "aria-label": "your text", oninput: () => {
      writeOn(false);
      cancelAnimationFrame(frame);             // of several changes at once, the last is shown
      frame = requestAnimationFrame(() => write(field.value));
    },
    placeholder: page.merges ? "The model runs in this page: write a text, and all figures show it …"
      : "Tokens by name or by number, with spaces between: #17 #3"});
  const said = el("p", {class: "said", role: "status"});
  const number = (label, value, most) => el("input", {type: "number", min: 1, max: most, value,
    "aria-label": label, class: "little", onchange: () => repeat()});
  const half = Math.floor((longest - first.length) / 2);
  const length = number("length of the block", Math.min(20, half), half);
  const seed = number("seed", 1, 999999);
  const writing = button("", () => writeOn(!timer));
  const chance = el("input", {type: "checkbox"});

  /* Contexts take the place of the reader's text; of the first, the last token is chosen. */
  function own(name, contexts, written) {
    texts.splice(given, Infinity, ...contexts.map((tokens, n) => model.text(
      contexts.length > 1 ? `${name}, ${n + 1} of ${contexts.length}` : name, tokens, written)));
    select({text: given, place: contexts[0].length - 1});
  }
  const spell = tokens => { field.value = tokenizer.decode(tokens.filter(id => id !== start)); };

  function restore(tokens) {
    if (texts[given]?.tokens.join() !== tokens.join()) {
      texts.splice(given, Infinity, model.text("your text", tokens.slice(0, longest)));
      spell(texts[given].tokens);
    }
    return given;
  }

  function write(value) {
    let ids;
    writeOn(false);
    field.value = value;
    try {
      ids = tokenizer.encode(value);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      said.textContent = `${error.message}; there are ${integer(d_vocab)}.`;
      return;
    }
    const contexts = [], step = longest - first.length;
    for (let n = 0; n < Math.max(1, ids.length); n += step) {
      contexts.push([...first, ...ids.slice(n, n + step)]);
    }
    if (contexts[0].length) own("your text", contexts);
  }

  function repeat() {
    writeOn(false);
    const [block, from] = [length, seed].map(input => Math.max(1, Math.floor(Number(input.value)) || 1));
    const many = Math.min(block, half);
    [length.value, seed.value] = [many, from];
    own(`${many} random tokens, twice (seed ${from})`, [randomBlocks(d_vocab, start, many, from)]);
  }

  /* One token more, after the place that is shown; false where the context is full. */
  function writeOne() {
    const {tokens: all, written} = shownText(), {place} = state, tokens = all.slice(0, place + 1);
    if (tokens.length >= longest) return false;
    const shares = model.shares(all, place);
    const longer = [...tokens, chance.checked ? drawn(shares, random()) : shares.indexOf(largest(shares))];
    spell(longer);
    own("your text, written on", [longer], Math.min(written, place + 1));
    return true;
  }
  function writeOn(on) {
    random = randomNumbers(Number(seed.value));
    clearInterval(timer);
    timer = on && setInterval(() => writeOne() || writeOn(false), 150);
    writing.textContent = on ? "stop" : "write on";
  }
  writeOn(false);

  const off = el("span", {});
  const patterns = choice("patterns of the others", [["no", "recomputed"], ["yes", "frozen"]], "no",
    value => select({run: {...state.run, frozen: value === "yes"}}));
  const switches = el("div", {class: "controls switches", hidden: true}, off,
    button("all on again", () => select({run: {off: [], frozen: false}})), patterns);
  container.append(el("div", {class: "sentence"}, said, field,
    el("div", {class: "controls"},
      page.merges && roving(el("span", {class: "buttons"}, "for example",
        EXAMPLES.map(text => button(text, () => write(text))))),
      half < 1 ? null : el("span", {class: "buttons"}, button("random tokens, twice", repeat),
        el("label", {}, "length ", length), el("label", {}, "seed ", seed)),
      el("span", {class: "buttons"}, "after the chosen token", button("one token", writeOne), writing,
        el("label", {}, chance, " by chance"))), switches));

  /* How the model does on the text that is shown, and which heads are off. */
  follow(["text", "place", "target", "run"], () => {
    const {tokens, loss, wholeLoss, probability, wholeProbability} = shownText(), {place, target} = state;
    const names = state.run.off, full = tokens.length < longest ? "" : `, as many as a context has`;
    if (state.text < given && document.activeElement !== field) field.value = "";
    const whole = value => names.length ? ` (${fixed(value)} with all heads)` : "";
    switches.hidden = !names.length;
    off.textContent = `off: ${names.join(", ")}`;
    patterns.querySelector(`[value=${state.run.frozen ? "yes" : "no"}]`).checked = true;
    said.replaceChildren(`${tokens.length} token${tokens.length > 1 ? "s" : ""}${full}. `,
      ...tokens.length < 2 ? [] : [`Loss: ${fixed(loss())} nats per token${whole(wholeLoss())}. `],
      `After ${place} `, mono(tokens[place]), ", the probability of ", mono(target),
      ` is ${fixed(probability(place, target))}${whole(wholeProbability(place, target))}.`);
  });
  return {write, restore};
}
