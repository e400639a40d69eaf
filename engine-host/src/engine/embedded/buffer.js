// The part of Node's Buffer that jobs use: conversions between text and bytes. The engine does the conversions:
// `host.encode(text, encoding)` gives a Uint8Array, `host.decode(binary, encoding)` takes a string of a character a byte.

const Bytes = Uint8Array;
const { fromCharCode } = String;
const { trunc } = Math;
const { isView } = ArrayBuffer;
const { set: setBytes, subarray } = methodsOf(Bytes.prototype);
const { charCodeAt } = methodsOf(String.prototype);

/** How many bytes a code unit takes in encodings that keep units as they are, halves of pairs too; 0 in others. */
const unitBytes = (encoding) =>
  matches(/^(?:latin1|binary|ascii)$/i, encoding) !== null ? 1 : matches(/^(?:utf-?16le|ucs-?2)$/i, encoding) !== null ? 2 : 0;

/** Whether an encoding takes a text for digits. Node looks at the lower half of each unit only. */
const hasDigits = (encoding) => matches(/^(?:base64(?:url)?|hex)$/i, text(encoding)) !== null;

/** The text of the lower halves of a text's units. */
function lowerHalves(string) {
  if (matches(/[^\0-\xff]/, string) === null) return string;
  let result = '';
  for (let i = 0; i < string.length; i += 1) result += fromCharCode(charCodeAt(string, i) & 0xff);
  return result;
}

function encode(string, encoding = 'utf8') {
  const width = unitBytes(text(encoding));
  if (width === 0) return host.encode(hasDigits(encoding) ? lowerHalves(string) : wellFormed(string), text(encoding));
  const bytes = new Bytes(string.length * width);
  for (let i = 0; i < string.length; i += 1) {
    const unit = charCodeAt(string, i);
    bytes[i * width] = unit;
    if (width === 2) bytes[i * width + 1] = unit >> 8;
  }
  return bytes;
}

function decode(bytes, encoding) {
  if (unitBytes(encoding) !== 2) return host.decode(binary(bytes), encoding);
  let result = '';
  for (let i = 0; i + 1 < bytes.length; i += 2) result += fromCharCode(bytes[i] | (bytes[i + 1] << 8));
  return result;
}

/** A string of the bytes, a character each. */
function binary(bytes) {
  let result = '';
  for (let i = 0; i < bytes.length; i += 4096) {
    result += apply(fromCharCode, undefined, subarray(bytes, i, i + 4096));
  }
  return result;
}

/** An index that was given as anything, as a whole number of 0 to `most`. */
const index = (given, most) => {
  const whole = trunc(given) || 0;
  return whole < 0 ? 0 : whole > most ? most : whole;
};

/** The bytes to look for in a Buffer, or to fill one with: those of a text, a number that is one byte, or bytes. */
function needleOf(value, encoding) {
  if (isText(value)) return encode(value, encoding);
  return typeof value === 'number' ? new Bytes(setPrototypeOf({ length: 1, 0: value }, null)) : value ?? new Bytes();
}

/** `bytes` with a pattern from one index to another, over and over; zeros where the pattern is empty. */
function filled(bytes, pattern, from, to) {
  const { length } = pattern;
  for (let i = from; i < to; i += 1) bytes[i] = length === 0 ? 0 : pattern[(i - from) % length];
  return bytes;
}

/** Whether `bytes` has `part` at an index. */
function hasAt(bytes, part, at) {
  for (let i = 0; i < part.length; i += 1) if (bytes[at + i] !== part[i]) return false;
  return at + part.length <= bytes.length;
}

/** -1, 0 or 1: which of two comes first, byte by byte. */
function compared(one, other) {
  const most = one.length < other.length ? one.length : other.length;
  for (let i = 0; i < most; i += 1) if (one[i] !== other[i]) return one[i] < other[i] ? -1 : 1;
  return one.length === other.length ? 0 : one.length < other.length ? -1 : 1;
}

/** What an error says of a value. */
function received(value) {
  if (value === undefined || value === null) return text(value);
  if (typeof value === 'function') return `function ${value.name}`;
  if (isObject(value)) return `an instance of ${attempt(() => value.constructor.name) ?? 'Object'}`;
  return `type ${typeof value} (${typeof value === 'bigint' ? `${value}n` : text(value)})`;
}

const asBuffer = (bytes) => setPrototypeOf(bytes, Buffer.prototype);

class Buffer extends Bytes {
  constructor() {
    throw new TypeError('Buffer cannot be constructed here: use Buffer.from');
  }

  static get [Symbol.species]() {
    return Bytes;
  }

  static from(value, encodingOrOffset, length) {
    if (isText(value)) return asBuffer(encode(value, encodingOrOffset));
    if (value instanceof ArrayBuffer) return asBuffer(new Bytes(value, encodingOrOffset, length));
    if (isObject(value)) {
      if (isArray(value) || isView(value)) return asBuffer(new Bytes(value));
      if (value.type === 'Buffer' && isArray(value.data)) return asBuffer(new Bytes(value.data));
      if (typeof value.length === 'number') return asBuffer(new Bytes(value));
      const primitive = value.valueOf();
      if (isText(primitive)) return asBuffer(encode(primitive, encodingOrOffset));
    }
    const error = new TypeError(
      `The first argument must be of type string or an instance of Buffer, ArrayBuffer, or Array or an Array-like Object. Received ${received(value)}`
    );
    error.code = 'ERR_INVALID_ARG_TYPE';
    throw error;
  }

  static alloc(size, fill = '', encoding = 'utf8') {
    return asBuffer(filled(new Bytes(size), needleOf(fill, encoding), 0, size));
  }

  static allocUnsafe(size) {
    return asBuffer(new Bytes(size));
  }

  static compare(one, other) {
    return compared(one, other);
  }

  static concat(parts, wanted) {
    let length = 0;
    for (let i = 0; i < parts.length; i += 1) length += parts[i].length;
    const whole = new Bytes(length);
    length = 0;
    for (let i = 0; i < parts.length; i += 1) {
      setBytes(whole, parts[i], length);
      length += parts[i].length;
    }
    if (wanted === undefined || wanted === length) return asBuffer(whole);
    const other = new Bytes(wanted);
    setBytes(other, subarray(whole, 0, wanted));
    return asBuffer(other);
  }

  static isBuffer(value) {
    return value instanceof Buffer;
  }

  static byteLength(value, encoding) {
    return isText(value) ? encode(value, encoding).length : value.byteLength;
  }

  toString(encoding = 'utf8', start = 0, end = this.length) {
    const { length } = this;
    return decode(subarray(this, index(start, length), index(end, length)), text(encoding));
  }

  /** As Node has it. */
  toLocaleString(...given) {
    return apply(shownBytes, this, given);
  }

  equals(other) {
    return other.length === this.length && hasAt(this, other, 0);
  }

  indexOf(value, start = 0, encoding = 'utf8') {
    const needle = needleOf(value, isText(start) ? start : encoding);
    const from = start < 0 ? this.length + start : start;
    for (let at = index(from, this.length); at + needle.length <= this.length; at += 1) {
      if (hasAt(this, needle, at)) return at;
    }
    return -1;
  }

  lastIndexOf(value, start, encoding = 'utf8') {
    const needle = needleOf(value, isText(start) ? start : encoding);
    const given = +start;
    const from = given !== given ? this.length : given < 0 ? this.length + given : given;
    for (let at = from < 0 ? -1 : index(from, this.length - needle.length); at >= 0; at -= 1) {
      if (hasAt(this, needle, at)) return at;
    }
    return -1;
  }

  fill(value, start, end, encoding) {
    const { length } = this;
    const pattern = needleOf(value, isText(start) ? start : isText(end) ? end : encoding);
    const to = end === undefined || isText(end) ? length : index(end, length);
    return filled(this, pattern, isText(start) ? 0 : index(start, length), to);
  }

  compare(other, start = 0, end = other.length, ownStart = 0, ownEnd = this.length) {
    return compared(subarray(this, ownStart, ownEnd), subarray(other, start, end));
  }

  copy(target, at = 0, start = 0, end = this.length) {
    const from = subarray(this, index(start, this.length), index(end, this.length));
    const room = target.length - at;
    const taken = from.length > room ? subarray(from, 0, room < 0 ? 0 : room) : from;
    if (taken.length > 0) setBytes(target, taken, at);
    return taken.length;
  }

  includes(value, start, encoding) {
    return apply(indexOfBytes, this, [value, start, encoding]) >= 0;
  }

  toJSON() {
    const data = [];
    for (let i = 0; i < this.length; i += 1) data[i] = this[i];
    return { type: 'Buffer', data };
  }

  slice(start, end) {
    return asBuffer(subarray(this, start, end));
  }

  subarray(start, end) {
    return asBuffer(subarray(this, start, end));
  }
}

const indexOfBytes = Buffer.prototype.indexOf;
const shownBytes = Buffer.prototype.toString;
