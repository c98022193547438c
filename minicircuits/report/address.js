/* The state in the page's address, after #: a link restores it, and the browser's back goes back.
   What is as it was at the opening is left out. A text that the reader made stands token by token. */

const TOGETHER = 500;            // ms: what changes faster is one step back

/* restore(tokens) makes a text of the reader's own, and returns its place in `texts`. */
function keepAddress(restore) {
  const given = texts.length, opening = {...state};
  let latest = -Infinity, reading = false, own = false;

  /* The state in words, by name. */
  function written() {
    const {text, head, against, run, ...others} = state, tokens = texts[text].tokens.join(".");
    return {...others, text: text < given ? text : null, tokens: text < given ? null : tokens,
            head: headNames[head], against: against ?? "nothing", off: run.off.join(" "),
            frozen: run.frozen ? "yes" : null};
  }
  const opened = written();

  /* What words mean, which may be a stranger's; undefined where they mean nothing. */
  const number = text => /^\d{1,9}$/.test(text) ? Number(text) : undefined;
  const chosen = page.ledger?.tokens ?? [...words.keys()];
  const token = text => chosen.includes(number(text)) ? number(text) : undefined;
  const meaning = {
    text: n => number(n) < given ? number(n) : undefined,
    tokens: ids => ids.split(".").every(id => token(id) !== undefined)
      ? restore(ids.split(".").map(Number)) : undefined,
    place: number, source: number, target: token, path: name => name.slice(0, 99),
    head: name => headNames.includes(name) ? headNames.indexOf(name) : undefined,
    against: name => name === "nothing" ? null : name === "mean" ? name : token(name),
    at: id => byId(id) ? id : undefined};

  function read() {
    const given = location.hash.slice(1), asked = new URLSearchParams(!byId(given) ? given
      : {at: given, head: given.replace("head-", "").replace("-", ".")});
    const off = asked.get("off")?.split(" ") ?? [], changes = {...opening, run: {
      off: headNames.filter(head => off.includes(head)), frozen: asked.get("frozen") === "yes"}};
    if (asked.has("place") && !asked.has("target")) delete changes.target;
    for (const [key, text] of asked) {
      const value = Object.hasOwn(meaning, key) ? meaning[key](text) : undefined;
      if (value !== undefined) changes[key === "tokens" ? "text" : key] = value;
    }
    reading = true;
    select(changes);
    reading = false;
    [latest, own] = [performance.now(), state.text >= given];
    if (state.at) jump(state.at);
  }

  function write(changed) {
    const now = Object.entries(written());
    const moved = now.some(([key, value]) =>
      ["text", "tokens", "place"].includes(key) && value !== opened[key]);
    const fragment = "#" + new URLSearchParams(now.filter(([key, value]) =>
      value !== null && (value !== opened[key] || key === "target" && moved)));
    if (reading || fragment === (location.hash || "#")) return;
    const typing = own && state.text >= given && changed.includes("text");   // or the model writes on
    history[typing || performance.now() - latest < TOGETHER ? "replaceState" : "pushState"](null, "", fragment);
    [latest, own] = [performance.now(), state.text >= given];
  }

  if (location.protocol === "about:") return;            // in a frame of a notebook
  addEventListener("popstate", read);
  if (location.hash) read();
  follow(Object.keys(state), write);
}
