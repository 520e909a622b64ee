// A safety policy for SafeLMM: prompts with an excluded word are refused, and in answers it is masked.
//
// The contract is wit/policy.wit. An enum is a string, a variant is { tag, val }, an option that is none is undefined or null.

const CATEGORY = "excluded-word";

/** Set by `configure`. */
let words = ["turnip"];

/** What an operator may set, as JSON Schema. */
const settingsSchema = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  type: "object",
  additionalProperties: false,
  properties: {
    words: { type: "array", items: { type: "string", minLength: 1 }, description: "Words that are excluded." },
  },
};

export const meta = {
  describe: () => ({
    name: "{{name}}",
    version: "0.1.0",
    summary: "Excludes words.",
    hooks: ["screen-prompt", "inspect-stream"],
    categories: [CATEGORY],
    languages: [],
    capabilities: [],
    settingsSchema: JSON.stringify(settingsSchema),
  }),

  configure(text) {
    const errors = [];
    let settings;
    try {
      settings = JSON.parse(text.trim() || "{}");
    } catch (error) {
      throw [{ pointer: "", message: `The settings are not JSON: ${error.message}` }];
    }
    if (typeof settings !== "object" || settings === null || Array.isArray(settings)) {
      throw [{ pointer: "", message: "The settings must be an object." }];
    }
    for (const key of Object.keys(settings)) {
      if (key !== "words") errors.push({ pointer: `/${key}`, message: "There is no such setting; there is: words." });
    }
    const list = settings.words ?? words;
    if (!Array.isArray(list)) {
      errors.push({ pointer: "/words", message: "Words must be a list." });
    } else {
      list.forEach((word, number) => {
        if (typeof word !== "string" || !word.trim()) {
          errors.push({ pointer: `/words/${number}`, message: "A word must be a text that is not empty." });
        }
      });
    }
    if (errors.length) throw errors;
    words = list.map(lower);
  },

  vectors: () => [
    vector("another word", { tag: "screen-prompt", val: "A carrot, please." }, "allow"),
    vector("an excluded word", { tag: "screen-prompt", val: "A Turnip, please." }, "deny", { category: CATEGORY }),
    vector("in two pieces", { tag: "inspect-stream", val: ["Eat a tur", "nip."] }, "rewrite", { text: "Eat a ***." }),
    vector("only the beginning", { tag: "inspect-stream", val: ["Take a tur", "n."] }, "allow", { text: "Take a turn." }),
    vector("other words", { tag: "screen-prompt", val: "A carrot." }, "deny", { settings: '{"words": ["carrot"]}' }),
  ],
};

export const texts = {
  screenPrompt(_request, text) {
    const found = find(text);
    return found ? { tag: "deny", val: [finding(text, found, 0)] } : { tag: "allow" };
  },
  filterPassages: (_request, passages) => passages.map(() => ({ tag: "allow" })),
  reviewResponse: () => ({ tag: "allow" }),
};

/** An answer that is being written. What it needs to remember would stand in its fields. */
class Session {
  constructor(_request, _prompt) {}

  adjustLogits(_drawn, _candidates) {
    return { ids: new Uint32Array(), values: new Float32Array() };
  }

  inspectStream(pending, sources) {
    const findings = [];
    let out = "";
    let rest = pending;
    for (let found = find(rest); found; found = find(rest)) {
      findings.push(finding(rest, found, bytes(pending) - bytes(rest)));
      out += rest.slice(0, found.at) + "***";
      rest = rest.slice(found.at + found.word.length);
    }
    // The last call has the sources of the answer: nothing follows, and nothing can be held.
    const hold = sources == null ? begun(rest) : 0;
    if (findings.length) return { tag: "replace", val: { text: out + rest, hold, findings } };
    return hold ? { tag: "hold", val: hold } : { tag: "pass" };
  }
}

export const generation = { Session };

/** ASCII letters in small, so that places in a text stay what they are. */
function lower(text) {
  return text.replace(/[A-Z]/g, (c) => c.toLowerCase());
}

/** The length in bytes of UTF-8, in which spans and `hold` count. */
function bytes(text) {
  let length = 0;
  for (const c of text) {
    const point = c.codePointAt(0);
    length += point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
  }
  return length;
}

/** The first excluded word, and where it stands. */
function find(text) {
  const small = lower(text);
  let first;
  for (const word of words) {
    const at = small.indexOf(word);
    if (at >= 0 && (!first || at < first.at)) first = { at, word };
  }
  return first;
}

/** How many bytes at the end of the text may be the beginning of an excluded word. */
function begun(text) {
  const small = lower(text);
  const longest = Math.max(0, ...words.map((word) => word.length));
  for (let at = Math.max(0, small.length - longest); at < small.length; at++) {
    const end = small.slice(at);
    if (words.some((word) => word.startsWith(end))) return bytes(end);
  }
  return 0;
}

function finding(text, { at, word }, offset) {
  const start = offset + bytes(text.slice(0, at));
  const where = { start, end: start + bytes(word) };
  return { category: CATEGORY, score: 1, reason: "A word that is excluded here.", where };
}

function vector(name, probe, expected, { settings, category, text, sources = [] } = {}) {
  return { name, settings, probe, expected, category, text, sources };
}
