// Dates in English, as `toLocaleString` and its kind write them.

const dateNames = ['weekday', 'year', 'month', 'day'];
const timeNames = ['hour', 'minute', 'second'];
const dateOptions = [...dateNames, ...timeNames, 'hour12', 'hourCycle', 'timeZone', 'timeZoneName', 'dateStyle', 'timeStyle'];

const monthNames = 'January February March April May June July August September October November December'.split(' ');
const dayNames = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ');

const DATE = 'Date.prototype.toLocaleString';

const two = (value) => String(value).padStart(2, '0');

/** The widths that each field may have. */
const widths = {
  weekday: ['narrow', 'short', 'long'],
  year: ['2-digit', 'numeric'],
  month: ['2-digit', 'numeric', 'narrow', 'short', 'long'],
  day: ['2-digit', 'numeric'],
  hour: ['2-digit', 'numeric'],
  minute: ['2-digit', 'numeric'],
  second: ['2-digit', 'numeric'],
  hourCycle: ['h11', 'h12', 'h23', 'h24'],
  dateStyle: ['full', 'long', 'medium', 'short'],
  timeStyle: ['full', 'long', 'medium', 'short'],
  timeZoneName: ['short', 'long', 'shortOffset', 'longOffset', 'shortGeneric', 'longGeneric'],
};

const dateStyles = {
  full: { weekday: 'long', year: 'numeric', month: 'long', day: 'numeric' },
  long: { year: 'numeric', month: 'long', day: 'numeric' },
  medium: { year: 'numeric', month: 'short', day: 'numeric' },
  short: { year: '2-digit', month: 'numeric', day: 'numeric' },
};

const timeStyles = {
  full: { hour: 'numeric', minute: '2-digit', second: '2-digit', timeZoneName: 'long' },
  long: { hour: 'numeric', minute: '2-digit', second: '2-digit', timeZoneName: 'short' },
  medium: { hour: 'numeric', minute: '2-digit', second: '2-digit' },
  short: { hour: 'numeric', minute: '2-digit' },
};

/** Whether local time is UTC all year long, as far as a date tells. */
export function isUtc(date) {
  const year = date.getFullYear();
  return new Date(year, 0, 1).getTimezoneOffset() === 0 && new Date(year, 6, 1).getTimezoneOffset() === 0;
}

/** What to show, by field: of `required` fields (date, time or any) the `usual` ones if none is named. */
function wanted(given, required, usual) {
  const options = { ...given };
  for (const name of Object.keys(widths)) options[name] = oneOf(given, name, widths[name], DATE);
  const { dateStyle, timeStyle } = options;
  if (dateStyle !== undefined || timeStyle !== undefined) {
    if (required === 'date' && timeStyle !== undefined) throw new TypeError('Invalid option : timeStyle');
    if (required === 'time' && dateStyle !== undefined) throw new TypeError('Invalid option : dateStyle');
    const other = [...dateNames, ...timeNames, 'timeZoneName'].find((name) => options[name] !== undefined);
    if (other !== undefined) throw new TypeError('Invalid option : option');
    return { ...options, ...dateStyles[dateStyle], ...timeStyles[timeStyle], isStyle: true };
  }
  const names = required === 'date' ? dateNames : required === 'time' ? timeNames : [...dateNames, ...timeNames];
  if (names.some((name) => options[name] !== undefined)) return options;
  const all = { date: ['year', 'month', 'day'], time: timeNames, all: ['year', 'month', 'day', ...timeNames] }[usual];
  return { ...options, ...Object.fromEntries(all.map((name) => [name, 'numeric'])) };
}

/** A name by its width. */
const shortened = (name, width) => (width === 'long' ? name : name.slice(0, width === 'short' ? 3 : 1));

function dateText(fields, { weekday, year, month, day }) {
  const isText = month !== undefined && !['numeric', '2-digit'].includes(month);
  const isOdd = (weekday ?? year ?? day) !== undefined && ((month === undefined && [weekday, year, day].filter(Boolean).length > 1)
    || (weekday !== undefined && (day === undefined) !== (month === undefined)) || month === 'narrow');
  if (isOdd) throw refusedHere('That choice of weekday, year, month and day');
  const years = year === '2-digit' ? two(fields.year % 100) : String(fields.year);
  const days = day === '2-digit' ? two(fields.day) : String(fields.day);
  const months = isText ? shortened(monthNames[fields.month], month) : month === '2-digit' ? two(fields.month + 1) : String(fields.month + 1);
  const name = weekday && shortened(dayNames[fields.weekday], weekday);
  const inner = isText
    ? [[months, day && days].filter(Boolean).join(' '), year && years].filter(Boolean).join(day ? ', ' : ' ')
    : [month && months, day && days, year && years].filter(Boolean).join('/');
  return [name, inner].filter(Boolean).join(', ');
}

function timeText(fields, options) {
  const { hour, minute, second, hour12, hourCycle } = options;
  const isOdd = hour === undefined || (second !== undefined && minute === undefined);
  if (isOdd && [hour, minute, second].filter(Boolean).length > 0) throw refusedHere('That choice of hour, minute and second');
  const cycle = hour12 === undefined ? (hourCycle ?? 'h12') : hour12 ? 'h12' : 'h23';
  const shown = { h11: fields.hour % 12, h12: fields.hour % 12 || 12, h23: fields.hour, h24: fields.hour || 24 }[cycle];
  const isHalf = cycle === 'h11' || cycle === 'h12';
  const hours = hour === '2-digit' || !isHalf ? two(shown) : String(shown);
  const clock = [hours, minute && two(fields.minute), second && two(fields.second)].filter(Boolean).join(':');
  return isHalf ? `${clock} ${fields.hour < 12 ? 'AM' : 'PM'}` : clock;
}

function zoneName(name, isInUtc) {
  if (!isInUtc || !['short', 'long'].includes(name)) throw refusedHere(`The timeZoneName ${name}`);
  return name === 'short' ? ' UTC' : ' Coordinated Universal Time';
}

function zone(given) {
  if (given === undefined) return undefined;
  const isKnown = ['UTC', 'GMT', 'ETC/UTC', 'ETC/GMT'].includes(String(given).toUpperCase());
  if (!isKnown) throw refusedHere(`The time zone ${given}`);
  return 'UTC';
}

/** A date in English: `required` says which fields count as a choice, `usual` what there is without one. */
export function date(value, locales, given, required, usual) {
  checkLocales(locales, ['en']);
  const options = wanted(checkOptions(given, dateOptions, DATE), required, usual);
  const inUtc = zone(options.timeZone) !== undefined;
  if (Number.isNaN(value)) return 'Invalid Date';
  const it = new Date(value);
  const part = (name) => it[`get${inUtc ? 'UTC' : ''}${name}`]();
  const year = part('FullYear');
  const fields = {
    // There is no year 0 before the first.
    year: year > 0 ? year : 1 - year,
    month: part('Month'),
    day: part('Date'),
    weekday: part('Day'),
    hour: part('Hours'),
    minute: part('Minutes'),
    second: part('Seconds'),
  };
  const hasDate = dateNames.some((name) => options[name] !== undefined);
  const hasTime = timeNames.some((name) => options[name] !== undefined);
  const zoneText = options.timeZoneName === undefined ? '' : zoneName(options.timeZoneName, inUtc || isUtc(it));
  if (!hasTime) {
    if (zoneText !== '') throw refusedHere('The timeZoneName of a day');
    return dateText(fields, options);
  }
  const clock = timeText(fields, options) + zoneText;
  if (!hasDate) return clock;
  if (options.month === undefined) throw refusedHere('That choice of weekday, year and day together with a time');
  return `${dateText(fields, options)}${options.month === 'long' ? ' at ' : ', '}${clock}`;
}
