// Numbers in English, as `toLocaleString` writes them.

const numberOptions = [
  'style', 'currency', 'currencyDisplay', 'minimumIntegerDigits', 'minimumFractionDigits', 'maximumFractionDigits',
  'minimumSignificantDigits', 'maximumSignificantDigits', 'useGrouping',
];

const NUMBER = 'Number.prototype.toLocaleString';

/** The signs of currencies that have one in English; others are written by their code. */
const currencySigns = {
  AUD: 'A$', BRL: 'R$', CAD: 'CA$', CNY: 'CN¥', EUR: '€', GBP: '£', HKD: 'HK$', ILS: '₪', INR: '₹', JPY: '¥', KRW: '₩',
  MXN: 'MX$', NZD: 'NZ$', PHP: '₱', TWD: 'NT$', USD: '$', VND: '₫', XAF: 'FCFA', XCD: 'EC$', XCG: 'Cg.', XOF: 'F\u202fCFA',
  XPF: 'CFPF',
};

/** The currencies whose amounts do not have two digits after the point. */
const currencyDigits = {
  0: 'AFN ALL BIF CLP COP DJF GNF HUF IDR IQD IRR ISK JPY KMF KPW KRW LAK LBP MGA MMK PKR PYG RWF SLL SOS SYP UGX VND VUV XAF XOF XPF YER',
  3: 'BHD JOD KWD LYD OMR TND',
};

function digitsOf(currency) {
  return Number(Object.keys(currencyDigits).find((count) => currencyDigits[count].includes(currency)) ?? 2);
}

/** A number as its digits, of which the first `point` stand before the decimal point. */
function decimal(value) {
  const [mantissa, exponent] = (typeof value === 'bigint' ? `${value}e${String(value).length - 1}` : value.toExponential()).split('e');
  const digits = mantissa.replace('.', '').replace(/0+$/, '');
  return { digits, point: digits === '' ? 0 : Number(exponent) + 1 };
}

/** A decimal to so many places after the point; a half is rounded away from zero. */
function rounded({ digits, point }, places) {
  const kept = point + places;
  if (kept >= digits.length) return { digits, point };
  if (kept < 0) return { digits: '', point: 0 };
  if (digits[kept] < '5') return { digits: digits.slice(0, kept), point };
  const more = String(BigInt(`0${digits.slice(0, kept)}`) + 1n).padStart(kept, '0');
  return { digits: more, point: point + more.length - kept };
}

function numericOption(options, name, least, most) {
  if (options[name] === undefined) return undefined;
  const value = Number(options[name]);
  if (!(value >= least && value <= most)) throw new RangeError(`${name} value is out of range.`);
  return Math.floor(value);
}

/** How many digits after the point there are at least and at most. */
function fractionDigits(options, usual) {
  let least = numericOption(options, 'minimumFractionDigits', 0, 100);
  let most = numericOption(options, 'maximumFractionDigits', 0, 100);
  if (least !== undefined && most !== undefined && least > most) throw new RangeError('maximumFractionDigits value is out of range.');
  least ??= Math.min(usual[0], most ?? usual[0]);
  most ??= Math.max(usual[1], least);
  return [least, most];
}

function numberFormat(options) {
  const style = oneOf(options, 'style', ['decimal', 'percent', 'currency', 'unit'], NUMBER) ?? 'decimal';
  if (style === 'unit') throw refusedHere('The style unit');
  const currency = options.currency === undefined ? undefined : String(options.currency).toUpperCase();
  if (currency !== undefined && !/^[A-Z]{3}$/.test(currency)) throw new RangeError('Invalid currency code : ' + options.currency);
  if (style === 'currency' && currency === undefined) throw new TypeError('Currency code is required with currency style.');
  const display = oneOf(options, 'currencyDisplay', ['code', 'symbol', 'narrowSymbol', 'name'], NUMBER);
  if (style === 'currency' && !['code', 'symbol', undefined].includes(display)) throw refusedHere(`The currencyDisplay ${display}`);
  const sign = style !== 'currency' ? '' : (display !== 'code' && currencySigns[currency]) || `${currency}\u00a0`;
  const grouping = options.useGrouping;
  if (typeof grouping === 'string' && !['always', 'auto', 'true', 'false'].includes(grouping)) {
    if (grouping === 'min2') throw refusedHere('The grouping min2');
    throw new RangeError(`Value ${grouping} out of range for ${NUMBER} options property useGrouping`);
  }
  const digits = style === 'currency' ? digitsOf(currency) : undefined;
  const usual = style === 'currency' ? [digits, digits] : style === 'percent' ? [0, 0] : [0, 3];
  const integerDigits = numericOption(options, 'minimumIntegerDigits', 1, 21) ?? 1;
  const least = numericOption(options, 'minimumSignificantDigits', 1, 21);
  const most = numericOption(options, 'maximumSignificantDigits', least ?? 1, 21);
  const significant = least === undefined && most === undefined ? undefined : [least ?? 1, most ?? 21];
  return { style, sign, isGrouped: grouping === undefined || Boolean(grouping), integerDigits, significant, fraction: fractionDigits(options, usual) };
}

/** The digits of a magnitude, without its sign. */
function magnitude(value, { style, isGrouped, integerDigits, significant, fraction }) {
  if (value === Infinity) return '∞';
  const exact = decimal(value);
  if (style === 'percent' && exact.digits !== '') exact.point += 2;
  const shown = rounded(exact, significant ? significant[1] - exact.point : fraction[1]);
  const { digits } = shown;
  const point = digits === '' ? 0 : shown.point;
  const integer = digits.slice(0, Math.max(point, 0)).padEnd(point, '0').padStart(integerDigits, '0');
  const least = significant ? significant[0] - (digits === '' ? 1 : point) : fraction[0];
  const after = ('0'.repeat(Math.max(-point, 0)) + digits.slice(Math.max(point, 0))).replace(/0+$/, '').padEnd(least, '0');
  return (isGrouped ? integer.replace(/\B(?=(\d{3})+$)/g, ',') : integer) + (after === '' ? '' : `.${after}`);
}

/** A number or BigInt in English. */
export function number(value, locales, given) {
  checkLocales(locales, ['en']);
  const format = numberFormat(checkOptions(given, numberOptions, NUMBER));
  if (Number.isNaN(value)) return `${format.sign}NaN${format.style === 'percent' ? '%' : ''}`;
  const isNegative = value < 0 || Object.is(value, -0);
  const text = magnitude(isNegative ? -value : value, format);
  return `${isNegative ? '-' : ''}${format.sign}${text}${format.style === 'percent' ? '%' : ''}`;
}
