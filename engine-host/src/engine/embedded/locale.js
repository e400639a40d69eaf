// Methods that depend on a locale: for English, by a module that is loaded when one of them is first used.

let loadedLocale;
const locale = () => (loadedLocale ??= host.load('locale'));

const { valueOf: valueOfNumber } = methodsOf(Number.prototype);
const { valueOf: valueOfBigInt } = methodsOf(BigInt.prototype);
const { toString: dateToString, toTimeString: timeToString } = methodsOf(Date.prototype);
const { toLowerCase: lowerCase, toUpperCase: upperCase } = methodsOf(String.prototype);

/** A date's text with the name of the time zone, which is UTC's or not known. */
function withZone(date, shown) {
  return shown !== 'Invalid Date' && endsWith(shown, 'GMT+0000') && locale().isUtc(date) ? `${shown} (Coordinated Universal Time)` : shown;
}

function stringOf(value, method) {
  if (value === undefined || value === null) throw new TypeError(`String.prototype.${method} called on null or undefined`);
  return text(value);
}

/** Replaces methods of a prototype. */
function localize(prototype, methods) {
  const names = keys(methods);
  for (let i = 0; i < names.length; i += 1) replaceMethod(prototype, names[i], methods[names[i]], prototype[names[i]].length);
}

localize(Number.prototype, {
  toLocaleString(...options) { return locale().number(valueOfNumber(this), options[0], options[1]); },
});
localize(BigInt.prototype, {
  toLocaleString(...options) { return locale().number(valueOfBigInt(this), options[0], options[1]); },
});
localize(Date.prototype, {
  toString() { return withZone(this, dateToString(this)); },
  toTimeString() { return withZone(this, timeToString(this)); },
  toLocaleString(...options) { return locale().date(valueOfDate(this), options[0], options[1], 'any', 'all'); },
  toLocaleDateString(...options) { return locale().date(valueOfDate(this), options[0], options[1], 'date', 'date'); },
  toLocaleTimeString(...options) { return locale().date(valueOfDate(this), options[0], options[1], 'time', 'time'); },
});
localize(String.prototype, {
  localeCompare(that, ...options) {
    return locale().compare(stringOf(this, 'localeCompare'), text(that), options[0], options[1]);
  },
  toLocaleUpperCase(...locales) { return upperCase(locale().inEnglish(stringOf(this, 'toLocaleUpperCase'), locales[0])); },
  toLocaleLowerCase(...locales) { return lowerCase(locale().inEnglish(stringOf(this, 'toLocaleLowerCase'), locales[0])); },
});
