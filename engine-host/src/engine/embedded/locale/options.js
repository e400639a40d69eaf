// What functions of locales take here: English as in the United States, and nothing that needs tables of others.

/** The error of what is left to Node, instead of a text that is wrong. */
const refusedHere = (what) =>
  new RangeError(`${what} is not possible in the embedded engine, which has no tables of locales: use the Node engine (--engine node)`);

/** Fails unless the first of the locales is one of these languages, in any of the regions named or without one. */
function checkLocales(locales, languages, regions = ['US']) {
  if (locales === undefined) return;
  if (locales === null) throw new TypeError('Cannot convert undefined or null to object');
  const tags = typeof locales === 'string' ? [locales] : Array.from(Object(locales));
  for (const tag of tags) {
    if (typeof tag !== 'string' && (typeof tag !== 'object' || tag === null)) throw new TypeError('Language ID should be string or object.');
    if (!/^[a-z]{2,8}(-[a-z0-9]{1,8})*$/i.test(tag)) throw new RangeError(`Incorrect locale information provided`);
  }
  if (tags.length === 0) return;
  const [language, region, ...more] = String(tags[0]).split('-');
  const isKnown = languages.includes(language.toLowerCase()) && (region === undefined || regions === 'any' || regions.includes(region.toUpperCase()));
  if (!isKnown || more.length > 0) throw refusedHere(`The locale ${tags[0]}`);
}

/** The options that were given, which must be among `known`. */
function checkOptions(options, known, method) {
  if (options === undefined) return {};
  if (options === null) throw new TypeError(`${method} called on null or undefined`);
  const given = {};
  for (const name of intlOptions) {
    const value = Object(options)[name];
    if (value === undefined) continue;
    if (!known.includes(name)) throw refusedHere(`The option ${name}`);
    given[name] = value;
  }
  return given;
}

/** Every option that Intl's formats and collators know; others are nobody's. */
const intlOptions = [
  'localeMatcher', 'style', 'currency', 'currencyDisplay', 'currencySign', 'unit', 'unitDisplay', 'notation', 'compactDisplay',
  'numberingSystem', 'minimumIntegerDigits', 'minimumFractionDigits', 'maximumFractionDigits', 'minimumSignificantDigits',
  'maximumSignificantDigits', 'roundingIncrement', 'roundingMode', 'roundingPriority', 'trailingZeroDisplay', 'useGrouping',
  'signDisplay', 'calendar', 'weekday', 'era', 'year', 'month', 'day', 'dayPeriod', 'hour', 'minute', 'second',
  'fractionalSecondDigits', 'hour12', 'hourCycle', 'timeZone', 'timeZoneName', 'dateStyle', 'timeStyle', 'formatMatcher',
  'usage', 'sensitivity', 'ignorePunctuation', 'numeric', 'caseFirst', 'collation',
];

/** An option that must be one of `values`. */
function oneOf(options, name, values, method) {
  if (options[name] === undefined) return undefined;
  const value = String(options[name]);
  if (!values.includes(value)) throw new RangeError(`Value ${value} out of range for ${method} options property ${name}`);
  return value;
}
