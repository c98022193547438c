/* Text to tokens and back, as in `training/tokenizer.py`. Bytes are strings of characters up to
   U+00FF, which is how Python's side of it reads them too. */

const BEYOND_ASCII = "(?:[\\xc2-\\xdf][\\x80-\\xbf]" +
  "|(?:\\xe0[\\xa0-\\xbf]|[\\xe1-\\xec\\xee\\xef][\\x80-\\xbf]|\\xed[\\x80-\\x9f])[\\x80-\\xbf]" +
  "|(?:\\xf0[\\x90-\\xbf]|[\\xf1-\\xf3][\\x80-\\xbf]|\\xf4[\\x80-\\x8f])[\\x80-\\xbf]{2})";
const SYMBOL = new RegExp(`${BEYOND_ASCII}|[^]`, "g");
/* (?=(…))\1 is a run that gives nothing back. \s of JavaScript knows more spaces than bytes do. */
const PIECE = new RegExp(
  `[ ]?_{0,2}(?:(?=([A-Za-z]{1,32}))\\1(?![\\x80-\\xff])` +
  `|(?:[A-Za-z]|${BEYOND_ASCII}|[\\x80-\\xff]){1,32})(?:__)?` +
  `|[ ]?[0-9]{1,3}|[ ]?_{1,16}|[ ]?[^ \\t-\\rA-Za-z0-9_\\x80-\\xff]{1,16}` +
  `|[ \\t-\\r]{0,16}\\n[ \\t]{0,32}` +
  `|[ \\t\\v-\\r]{1,32}(?=[ ][^ \\t-\\r])|[ \\t\\v-\\r]{1,32}`, "g");
const ALONE = 65536;          // bytes from here on are no ids, and no merge reads them

/* The UTF-8 of a string; half a pair of surrogates takes three bytes. */
function utf8(text) {
  return Array.from(text, character => {
    const code = character.codePointAt(0), more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < ALONE ? 2 : 3;
    const first = [0, 0xc0, 0xe0, 0xf0][more] | code >> 6 * more;
    const rest = Array.from({length: more}, (_, n) => 0x80 | code >> 6 * (more - 1 - n) & 0x3f);
    return String.fromCharCode(first, ...rest);
  }).join("");
}

/* merges: pairs of ids, in the order in which they are applied. */
function tokenizerOf(merges) {
  const tokens = Array.from({length: 256}, (_, byte) => String.fromCharCode(byte));
  const joined = new Map(), characters = new Map();
  const pair = (left, right) => left * 4 * ALONE + right;
  for (const [left, right] of merges) {
    const key = pair(left, right), token = tokens[left] + tokens[right];
    if (!joined.has(key)) joined.set(key, tokens.length);
    if (token.length > 1 && token.match(SYMBOL).length === 1 && !characters.has(token)) {
      characters.set(token, tokens.length);
    }
    tokens.push(token);
  }

  function encodePiece(piece) {
    let ids = piece.match(SYMBOL).flatMap(symbol => symbol.length === 1 ? symbol.charCodeAt(0)
      : characters.get(symbol) ?? Array.from(symbol, byte => ALONE + byte.charCodeAt(0)));
    for (;;) {                             // the merge made first, everywhere in the piece
      const first = ids.reduce((least, id, n) =>
        n ? Math.min(least, joined.get(pair(ids[n - 1], id)) ?? Infinity) : least, Infinity);
      if (first === Infinity) return ids.map(id => id % ALONE);
      const after = [];
      for (let n = 0; n < ids.length; n++) {
        if (n + 1 < ids.length && joined.get(pair(ids[n], ids[n + 1])) === first) {
          after.push(first);
          n++;
        } else after.push(ids[n]);
      }
      ids = after;
    }
  }

  return {
    encodeBytes: bytes => (bytes.match(PIECE) ?? []).flatMap(encodePiece),
    encode(text) { return this.encodeBytes(utf8(text)); },
    decode: ids => new TextDecoder("utf-8", {ignoreBOM: true}).decode(Uint8Array.from(
      ids.map(id => tokens[id] ?? "").join(""), byte => byte.charCodeAt(0))),
  };
}

/* Tokens by name, or by id as #17, with spaces between: where the page has no tokenizer. */
function namedTokens(vocabulary, n) {
  const ids = new Map(vocabulary.map(([id, name]) => [name, id]).reverse());
  const idOf = name => {
    const id = /^#\d{1,9}$/.test(name) ? Number(name.slice(1)) : ids.get(name) ?? n;
    if (id >= n) throw new RangeError(`no token is called ${name.slice(0, 40)}`);
    return id;
  };
  return {encode: text => text.split(/\s+/).filter(Boolean).map(idOf),
          decode: tokens => tokens.map(id => `#${id}`).join(" ")};
}
