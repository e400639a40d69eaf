// Dates by pattern and patterns of dates, with the letters of date-fns (Unicode's), in English and the local time zone.

const months = 'January February March April May June July August September October November December'.split(' ');
const weekdays = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ');

const padded = (number, width) => (number < 0 ? '-' : '') + String(Math.abs(number)).padStart(width, '0');

const ordinal = (number) => {
  const teens = number % 100 > 10 && number % 100 < 14;
  return `${number}${(teens ? undefined : { 1: 'st', 2: 'nd', 3: 'rd' }[number % 10]) ?? 'th'}`;
};

/** A number by the count of its letters; `o` after a letter asks for an ordinal. */
const number = (value, width, ordinalWanted) => (ordinalWanted ? ordinal(value) : padded(value, width));

const named = (name, width, short = 3) => (width === 5 ? name[0] : width === 4 ? name : name.slice(0, short));

function offset(date, width, zulu) {
  const minutes = -date.getTimezoneOffset();
  if (zulu && minutes === 0) return 'Z';
  const [hours, rest] = [padded(Math.floor(Math.abs(minutes) / 60), 2), padded(Math.abs(minutes) % 60, 2)];
  const sign = minutes < 0 ? '-' : '+';
  if (width === 1) return sign + hours + (rest === '00' ? '' : rest);
  return sign + hours + (width === 3 || width === 5 ? ':' : '') + rest;
}

function greenwich(date, width) {
  if (width === 4) return `GMT${offset(date, 3, false)}`;
  const minutes = -date.getTimezoneOffset();
  const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
  return `GMT${minutes < 0 ? '-' : '+'}${hours}${rest === 0 ? '' : `:${padded(rest, 2)}`}`;
}

const dayOfYear = (date) => {
  const start = Date.UTC(date.getFullYear(), 0, 1);
  return (Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - start) / 86_400_000 + 1;
};

/** The ISO year and week that a day belongs to: those of its Thursday. */
function isoWeek(date) {
  const thursday = new Date(date.getFullYear(), date.getMonth(), date.getDate() + 4 - (date.getDay() || 7));
  return { year: thursday.getFullYear(), week: Math.ceil(dayOfYear(thursday) / 7) };
}

const dayPeriods = {
  1: ['AM', 'PM'],
  3: ['am', 'pm'],
  4: ['a.m.', 'p.m.'],
  5: ['a', 'p'],
};

const yearOf = (year, width) => (width === 2 ? padded(year % 100, 2) : padded(year, width));

/** What each letter shows of a date, by the count of letters and whether an ordinal is wanted. */
const shownParts = {
  G: (date, width) => (date.getFullYear() > 0 ? ['AD', 'AD', 'AD', 'Anno Domini', 'A'] : ['BC', 'BC', 'BC', 'Before Christ', 'B'])[width - 1],
  y: (date, width, asOrdinal) => (asOrdinal ? ordinal(date.getFullYear()) : yearOf(date.getFullYear(), width)),
  R: (date, width) => padded(isoWeek(date).year, width),
  u: (date, width) => padded(date.getFullYear(), width),
  Q: (date, width, asOrdinal) => quarter(date, width, asOrdinal),
  q: (date, width, asOrdinal) => quarter(date, width, asOrdinal),
  M: (date, width, asOrdinal) =>
    width > 2 ? named(months[date.getMonth()], width) : number(date.getMonth() + 1, width, asOrdinal),
  L: (date, width, asOrdinal) => shownParts.M(date, width, asOrdinal),
  I: (date, width, asOrdinal) => number(isoWeek(date).week, width, asOrdinal),
  d: (date, width, asOrdinal) => number(date.getDate(), width, asOrdinal),
  D: (date, width, asOrdinal) => number(dayOfYear(date), width, asOrdinal),
  E: (date, width) => named(weekdays[date.getDay()], width === 6 ? 6 : width, width === 6 ? 2 : 3),
  i: (date, width, asOrdinal) =>
    width > 2 ? named(weekdays[date.getDay()], width, width === 6 ? 2 : 3) : number(date.getDay() || 7, width, asOrdinal),
  a: (date, width) => (dayPeriods[width] ?? dayPeriods[1])[date.getHours() < 12 ? 0 : 1],
  h: (date, width, asOrdinal) => number(date.getHours() % 12 || 12, width, asOrdinal),
  H: (date, width, asOrdinal) => number(date.getHours(), width, asOrdinal),
  K: (date, width, asOrdinal) => number(date.getHours() % 12, width, asOrdinal),
  k: (date, width, asOrdinal) => number(date.getHours() || 24, width, asOrdinal),
  m: (date, width, asOrdinal) => number(date.getMinutes(), width, asOrdinal),
  s: (date, width, asOrdinal) => number(date.getSeconds(), width, asOrdinal),
  S: (date, width) => padded(Math.floor(date.getMilliseconds() * 10 ** (width - 3)), width),
  X: (date, width) => offset(date, width, true),
  x: (date, width) => offset(date, width, false),
  O: (date, width) => greenwich(date, width),
  z: (date, width) => greenwich(date, width),
  t: (date, width) => padded(Math.floor(date.getTime() / 1000), width),
  T: (date, width) => padded(date.getTime(), width),
};

function quarter(date, width, asOrdinal) {
  const value = Math.ceil((date.getMonth() + 1) / 3);
  if (width === 3) return `Q${value}`;
  return width === 4 ? `${ordinal(value)} quarter` : number(value, width === 5 ? 1 : width, asOrdinal);
}

/** Patterns that stand for others. */
const longPatterns = {
  P: ['MM/dd/yyyy', 'MMM d, yyyy', 'MMMM do, yyyy', 'EEEE, MMMM do, yyyy'],
  p: ['h:mm a', 'h:mm:ss a', 'h:mm:ss a z', 'h:mm:ss a zzzz'],
};

const patternParts = /(P+)(p+)?|(p+)|([A-Za-z])o|([A-Za-z])\5*|''|'((?:''|[^'])+)'?|[^A-Za-z']+|'/g;

/** The parts of a pattern: `{ letter, width, asOrdinal }`, or `{ text }`. */
function partsOf(pattern) {
  const parts = [];
  for (const match of pattern.matchAll(patternParts)) {
    const [whole, days, times, lone, asOrdinal, letter, quoted] = match;
    if (days !== undefined || lone !== undefined) {
      const day = days && longPatterns.P[Math.min(days.length, 4) - 1];
      const time = (times ?? lone) && longPatterns.p[Math.min((times ?? lone).length, 4) - 1];
      const between = days?.length > 2 ? " 'at' " : ', ';
      parts.push(...partsOf([day, time].filter(Boolean).join(between)));
    } else if (asOrdinal !== undefined) parts.push({ letter: asOrdinal, width: 1, asOrdinal: true });
    else if (letter !== undefined) parts.push({ letter, width: whole.length, asOrdinal: false });
    else parts.push({ text: whole === "''" ? "'" : (quoted?.replaceAll("''", "'") ?? whole) });
  }
  return parts;
}

/** A date by a pattern. */
function formatDate(value, pattern) {
  const date = value instanceof Date || typeof value === 'number' ? new Date(value) : new Date(NaN);
  if (Number.isNaN(date.getTime())) throw new RangeError('Invalid time value');
  const show = ({ text, letter, width, asOrdinal }) => {
    if (text !== undefined) return text;
    const part = Object.hasOwn(shownParts, letter) ? shownParts[letter] : undefined;
    const isYear = letter === 'D' && width < 3;
    if (part === undefined || isYear) {
      throw new RangeError(`The letters ${letter.repeat(width)} in the pattern ${pattern} have no meaning here`);
    }
    return part(date, width, asOrdinal);
  };
  return partsOf(String(pattern)).map(show).join('');
}

/** How the letters of a pattern are read: what they look like by their count, and what they say. */
const readParts = {
  y: [(width) => (width === 1 || width === 3 ? '\\d+' : `\\d{1,${width}}`), 'year'],
  M: [(width) => ['\\d{1,2}', '\\d{1,2}', months.map((name) => name.slice(0, 3)).join('|'), months.join('|')][width - 1], 'month'],
  L: [(width) => readParts.M[0](width), 'month'],
  d: [(width) => (width < 3 ? '\\d{1,2}' : undefined), 'day'],
  E: [(width) => (width === 4 ? weekdays : weekdays.map((name) => name.slice(0, 3))).join('|'), 'weekday'],
  a: [(width) => (width > 3 ? '[ap]\\.m\\.|[ap]' : '[ap]m'), 'half'],
  h: [(width) => (width < 3 ? '\\d{1,2}' : undefined), 'hour12'],
  H: [(width) => (width < 3 ? '\\d{1,2}' : undefined), 'hour'],
  m: [(width) => (width < 3 ? '\\d{1,2}' : undefined), 'minute'],
  s: [(width) => (width < 3 ? '\\d{1,2}' : undefined), 'second'],
  S: [(width) => `\\d{1,${width}}`, 'fraction'],
  X: [(width) => `Z|[+-]\\d{2}${width === 1 ? '(?:\\d{2})?' : width === 3 ? ':\\d{2}' : '\\d{2}'}`, 'zone'],
  x: [(width) => `[+-]\\d{2}${width === 1 ? '(?:\\d{2})?' : width === 3 ? ':\\d{2}' : '\\d{2}'}`, 'zone'],
};

/** The year that two digits mean: the nearest within half a century of another one. */
function nearYear(digits, near) {
  const century = Math.floor((near + 50) / 100) * 100;
  const end = (near + 50) % 100;
  return century + digits - (digits >= end ? 100 : 0);
}

/** What a text says by a pattern, as texts by name; undefined if it does not fit. */
function readText(text, pattern) {
  const names = [];
  const shape = partsOf(pattern).map(({ text: literal, letter, width, asOrdinal }) => {
    if (literal !== undefined) return RegExp.escape(literal);
    const [look, name] = Object.hasOwn(readParts, letter) ? readParts[letter] : [];
    const expected = look?.(width);
    if (expected === undefined) {
      throw new RangeError(`The letters ${letter.repeat(width)} in the pattern ${pattern} cannot be read here`);
    }
    names.push([name, width]);
    return asOrdinal ? '(\\d{1,2})(?:st|nd|rd|th)' : `(${expected})`;
  });
  const match = new RegExp(`^${shape.join('')}$`, 'i').exec(text);
  return match === null ? undefined : names.map(([name, width], index) => ({ name, width, value: match[index + 1] }));
}

/** A date from a text by a pattern: the rest comes from another date. An invalid date where the text does not fit. */
function parseDateBy(text, pattern, reference) {
  const read = readText(String(text), String(pattern));
  if (read === undefined) return new Date(NaN);
  const date = new Date(reference);
  const said = {};
  for (const { name, width, value } of read) {
    said[name] = name === 'year' && width === 2 ? nearYear(Number(value), date.getFullYear()) : value;
  }
  const month = said.month && (Number(said.month) || months.findIndex((name) => name.toLowerCase().startsWith(said.month.toLowerCase())) + 1);
  const isPm = /^p/i.test(said.half ?? '');
  const { year } = said;
  if (year !== undefined) date.setFullYear(Number(year), 0, 1);
  if (month !== undefined) date.setMonth(month - 1, 1);
  if (said.day !== undefined) date.setDate(Number(said.day));
  if (year !== undefined || month !== undefined || said.day !== undefined) date.setHours(0, 0, 0, 0);
  const hour = said.hour ?? (said.hour12 && (Number(said.hour12) % 12) + (isPm ? 12 : 0));
  if (hour !== undefined) date.setHours(Number(hour), 0, 0, 0);
  if (said.minute !== undefined) date.setMinutes(Number(said.minute), 0, 0);
  if (said.second !== undefined) date.setSeconds(Number(said.second), 0);
  if (said.fraction !== undefined) date.setMilliseconds(Math.floor(Number(`0.${said.fraction}`) * 1000 + 1e-6));
  const isImpossible =
    (month !== undefined && (month < 1 || month > 12)) ||
    (said.day !== undefined && date.getDate() !== Number(said.day)) ||
    Number(hour ?? 0) > 23 || Number(said.hour12 ?? 1) > 12 || said.hour12 === '0' || said.hour12 === '00' ||
    Number(said.minute ?? 0) > 59 || Number(said.second ?? 0) > 59;
  if (isImpossible) return new Date(NaN);
  return said.zone === undefined ? date : inZone(date, said.zone);
}

/** The moment at which a clock of another zone shows what `date` shows here. */
function inZone(date, zone) {
  const [, sign, hours, minutes] = /([+-])(\d{2}):?(\d{2})?/.exec(zone) ?? [];
  const ahead = sign === undefined ? 0 : Number(`${sign}1`) * (Number(hours) * 60 + Number(minutes ?? 0));
  return new Date(date.getTime() - (ahead + date.getTimezoneOffset()) * 60_000);
}

const dateFns = { format: formatDate, parse: parseDateBy };
