/* What the page was given: JSON in the document, and arrays in it in base64. */

const page = JSON.parse(document.getElementById("data").textContent);

/* A packed array as one Float32Array for each row of its first axis: floats, or integers that
   count in steps of the row's scale. (Little-endian, as every machine with a browser is.) */
function unpack({shape, scale, data}) {
  const text = atob(data), bytes = new Uint8Array(text.length), {buffer} = bytes;
  for (let n = 0; n < text.length; n++) bytes[n] = text.charCodeAt(n);
  const all = scale ? new Int16Array(buffer) : new Float32Array(buffer);
  const size = all.length / (shape[0] || 1);
  return Array.from({length: shape[0]}, (_, n) => {
    const row = all.subarray(n * size, (n + 1) * size);
    return scale ? Float32Array.from(row, integer => integer * scale[n]) : row;
  });
}

/* What `make` makes, when it is first asked for. */
function once(make) {
  let made;
  return () => (made ??= make());
}

const unpacked = packed => once(() => unpack(packed));

const words = new Map(page.vocabulary);

/* A token in visible characters, on one line. */
const word = id => words.get(id);

/* A token as it runs in a text: its spaces are spaces, and line ends, where it has nothing
   else, end lines. */
function running(id) {
  const blank = /^(␣|\\[nrt])*$/.test(word(id));
  const spaced = word(id).replaceAll("␣", " ");
  return blank ? spaced.replaceAll("\\n", "↵\n") : spaced;
}

/* What a head is called, by a score above what untrained heads reach: "induction 0.46", or "". */
const roleOf = index => page.roles?.[index] ?? "";
const headName = ([layer, head]) => `${layer}.${head}`;

/* Of what says something about a head: (layer, head). */
const headOf = ({layer, head}) => [layer, head];
const sameHead = (one, other) => Boolean(one && other) && headName(one) === headName(other);
const pathName = heads => heads.map(headName).join("→") || "direct";
