// Writes collation.txt: the order of characters in CLDR's root collation, which English has, as this Node knows it.
//
// A line is a group of characters that differ in their accents or case only, in order; a tab stands before one that
// differs in more than its case. After an empty line: the combining marks, in order; then each character that is ordered
// like others, with these.

const fs = require('node:fs');
const path = require('node:path');

const base = new Intl.Collator('en', { sensitivity: 'base' }).compare;
const accent = new Intl.Collator('en', { sensitivity: 'accent' }).compare;
const full = new Intl.Collator('en').compare;

const ranges = [
  [0x20, 0x7e], [0xa0, 0x24f], [0x2b0, 0x2ff], [0x300, 0x36f], [0x370, 0x3ff], [0x400, 0x4ff], [0x1e00, 0x1eff],
  [0x2010, 0x205e], [0x20a0, 0x20c0], [0x2100, 0x2122],
];
const all = ranges.flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, i) => String.fromCodePoint(first + i)));
const known = all.filter((char) => !/\p{Cn}/u.test(char) && char.normalize('NFD') === char && full(`a${char}b`, 'ab') !== 0);
const marks = known.filter((char) => base(`a${char}`, 'a') === 0).sort(full);
const letters = known.filter((char) => !marks.includes(char)).sort((a, b) => base(a, b) || accent(a, b) || full(a, b));

const written = { æ: 'ae', Æ: 'AE', œ: 'oe', Œ: 'OE', ß: 'ss', ẞ: 'SS' };
const like = [];
const groups = [];
let previous;
for (const char of letters) {
  const others = written[char] ?? char.normalize('NFKD');
  const pairs = [...(groups.at(-1) ?? '')].flatMap((letter) => marks.map((mark) => letter + mark));
  const marked = pairs.find((pair) => full(pair, char) === 0);
  if ([...others].length > 1 && base(char, others) === 0) like.push(char + others);
  else if (marked !== undefined && base(previous, char) === 0) like.push(char + marked);
  else {
    if (previous === undefined || base(previous, char) !== 0) groups.push(char);
    else groups[groups.length - 1] += (accent(previous, char) === 0 ? '' : '\t') + char;
    previous = char;
  }
}
fs.writeFileSync(path.join(__dirname, 'collation.txt'), `${groups.join('\n')}\n\n${marks.join('')}\n${like.join('\n')}\n`);
