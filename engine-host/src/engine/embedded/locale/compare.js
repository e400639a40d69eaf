// Texts in the order of CLDR's root collation, which English has: accents count where letters do not decide, and case
// where accents do not. Beyond Latin, Greek, Cyrillic and common signs, punctuation comes before symbols, symbols before
// currencies and digits, letters last, and each kind is ordered by its numbers.

const collatorOptions = ['usage', 'sensitivity', 'numeric', 'localeMatcher'];

const COMPARE = 'String.prototype.localeCompare';

/** Languages that order their letters as English does. */
const rootLanguages = ['en', 'de', 'fr', 'it', 'nl', 'pt', 'id', 'sw'];

/** The weights of each known character: of its letter, accent and case. */
let weights;
/** What characters are ordered like. */
const like = new Map();

/** All of a letter's accents come before another letter with a place of its own among them. */
const OTHER_LETTER = 500;

/** The weight of what is not there. */
const NOTHING = -1;

function readWeights() {
  weights = new Map();
  const [groups, rest] = collation.split('\n\n');
  groups.split('\n').forEach((group, letter) => {
    let accent = 0;
    [...group].forEach((char, place) => {
      if (char === '\t') accent = accent === 0 ? OTHER_LETTER : accent + 1;
      else weights.set(char, [letter + 10, accent, place]);
    });
  });
  const [marks, ...others] = rest.trimEnd().split('\n');
  [...marks].forEach((mark, place) => weights.set(mark, [0, place + 1, 0]));
  for (const [char, ...chars] of others) like.set(char, chars.join(''));
  // Before all others, and in this order.
  [...'\t\n\v\f\r\u0085'].forEach((char, place) => weights.set(char, [place + 1, 0, 0]));
}

const ignored = /[\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]/;

const MOST_CHARACTERS = 0x110000;

/** The weight of a character that is in no list, among those of its kind. */
function weightByNumber(char) {
  const number = char.codePointAt(0);
  const before = (known) => weights.get(known)[0] - 1 + (number + 1) / (MOST_CHARACTERS + 1);
  if (/\p{P}/u.test(char)) return before('`');
  if (/\p{S}/u.test(char)) return before('¤');
  return 0x1000 + number;
}

/** What case alone says: small letters and what has no case before titles before capitals. */
function caseOf(char) {
  if (char === char.toLowerCase()) return 0;
  return char === char.toUpperCase() ? 2 : 1;
}

/** The weights of a text's characters: of letter, accent, place among its kind, and case. */
function weigh(text, isNumeric) {
  const all = [];
  const add = (char, isLike) => {
    if (like.has(char)) for (const other of like.get(char)) add(other, true);
    else if (weights.has(char)) {
      const [letter, accent, place] = weights.get(char);
      all.push([letter, accent, isLike ? place + 0.5 : place, caseOf(char)]);
    } else {
      // Ligatures, characters in a circle and their kind are variants of plain ones.
      const plain = char.normalize('NFKD');
      if (plain !== char) for (const other of plain) add(other, true);
      else if (!ignored.test(char)) all.push([weightByNumber(char), 0, 0, caseOf(char)]);
    }
  };
  const parts = text.normalize('NFD').match(isNumeric ? /\d+|\D/gsu : /./gsu) ?? [];
  for (const part of parts) {
    if (isNumeric && /^\d/.test(part)) {
      const digits = part.replace(/^0+(?=.)/, '');
      all.push([weights.get('0')[0] + 0.5, 0, 0, 0], [digits.length, 0, 0, 0]);
      for (const digit of digits) add(digit);
    } else add(part);
  }
  return all;
}

/** -1, 0 or 1: by the weights at one level, of those that have any there. */
function byLevel(one, other, level) {
  const count = (all) => (level === 1 ? all : all.filter(([letter]) => letter !== 0));
  const [a, b] = [count(one), count(other)];
  for (let i = 0; i < Math.max(a.length, b.length); i += 1) {
    const [x, y] = [a[i]?.[level] ?? NOTHING, b[i]?.[level] ?? NOTHING];
    if (x !== y) return x < y ? -1 : 1;
  }
  return 0;
}

/** The order of two texts: -1, 0 or 1. */
export function compare(one, other, locales, given) {
  checkLocales(locales, rootLanguages, 'any');
  const options = checkOptions(given, collatorOptions, COMPARE);
  oneOf(options, 'usage', ['sort', 'search'], COMPARE);
  if (options.usage === 'search') throw refusedHere('The usage search');
  const sensitivity = oneOf(options, 'sensitivity', ['base', 'accent', 'case', 'variant'], COMPARE) ?? 'variant';
  if (one === other) return 0;
  if (weights === undefined) readWeights();
  const isNumeric = Boolean(options.numeric);
  const [a, b] = [weigh(one, isNumeric), weigh(other, isNumeric)];
  const levels = { base: [0], accent: [0, 1], case: [0, 3], variant: [0, 1, 2] }[sensitivity];
  for (const level of levels) {
    const order = byLevel(a, b, level);
    if (order !== 0) return order;
  }
  return 0;
}

/** A text whose case does not depend on the locale: it does in Azeri, Lithuanian and Turkish alone. */
export function inEnglish(text, locales) {
  if (locales === undefined) return text;
  const [first] = typeof locales === 'string' ? [locales] : Array.from(Object(locales));
  if (/^(az|lt|tr)\b/i.test(first)) throw refusedHere(`The locale ${first}`);
  return text;
}
