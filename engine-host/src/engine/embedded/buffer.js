// The part of Node's Buffer that jobs use: conversions between text and bytes.

const { fromCharCode } = String;
const charCodeAt = unbound(String.prototype.charCodeAt);
const codePointAt = unbound(String.prototype.codePointAt);
const toLowerCase = unbound(String.prototype.toLowerCase);
const Bytes = Uint8Array;
const isView = ArrayBuffer.isView;
const subarray = unbound(Bytes.prototype.subarray);
const setBytes = unbound(Bytes.prototype.set);
const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const urlDigits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

/** Collects bytes when their number is not known before. */
function collector(size) {
  let bytes = new Bytes(size);
  let length = 0;
  return {
    add(byte) {
      if (length === bytes.length) {
        const larger = new Bytes(2 * length + 16);
        setBytes(larger, bytes);
        bytes = larger;
      }
      bytes[length] = byte;
      length += 1;
    },
    done: () => (length === bytes.length ? bytes : new Bytes(bytes.buffer, 0, length)),
  };
}

function utf8Bytes(string) {
  const { add, done } = collector(string.length);
  for (let i = 0; i < string.length; i += 1) {
    let code = codePointAt(string, i);
    if (code > 0xffff) i += 1;
    else if (code >= 0xd800 && code <= 0xdfff) code = 0xfffd;
    if (code < 0x80) add(code);
    else {
      if (code < 0x800) add(0xc0 | (code >> 6));
      else {
        if (code < 0x10000) add(0xe0 | (code >> 12));
        else {
          add(0xf0 | (code >> 18));
          add(0x80 | ((code >> 12) & 63));
        }
        add(0x80 | ((code >> 6) & 63));
      }
      add(0x80 | (code & 63));
    }
  }
  return done();
}

function utf8Text(bytes) {
  let result = '';
  let i = 0;
  while (i < bytes.length) {
    const first = bytes[i];
    i += 1;
    const more = first < 0x80 ? 0 : first >= 0xc2 && first < 0xe0 ? 1 : first >= 0xe0 && first < 0xf0 ? 2
      : first >= 0xf0 && first < 0xf5 ? 3 : -1;
    let code = more <= 0 ? first : first & (0x3f >> more);
    let valid = more >= 0;
    for (let left = more; valid && left > 0; left -= 1) {
      const next = bytes[i];
      // The second byte must not make an overlong form, a surrogate, or more than U+10FFFF.
      const low = left !== more ? 0x80 : first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
      const high = left !== more ? 0xbf : first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
      valid = next >= low && next <= high;
      if (valid) {
        code = (code << 6) | (next & 0x3f);
        i += 1;
      }
    }
    if (!valid) code = 0xfffd;
    result += code > 0xffff
      ? fromCharCode(0xd800 + ((code - 0x10000) >> 10), 0xdc00 + ((code - 0x10000) & 0x3ff))
      : fromCharCode(code);
  }
  return result;
}

const base64Values = new Map();
for (let i = 0; i < 64; i += 1) {
  mapSet(base64Values, charCodeAt(digits, i), i);
  mapSet(base64Values, charCodeAt(urlDigits, i), i);
}

function base64Bytes(string) {
  const { add, done } = collector((string.length * 3) >> 2);
  let bits = 0;
  let count = 0;
  for (let i = 0; i < string.length && string[i] !== '='; i += 1) {
    const value = mapGet(base64Values, charCodeAt(string, i));
    if (value === undefined) continue;
    bits = ((bits << 6) | value) & 0xffff;
    count += 6;
    if (count >= 8) {
      count -= 8;
      add((bits >> count) & 255);
    }
  }
  return done();
}

function base64Text(bytes, alphabet, padding) {
  let result = '';
  for (let i = 0; i < bytes.length; i += 3) {
    const left = bytes.length - i;
    const bits = (bytes[i] << 16) | ((left > 1 ? bytes[i + 1] : 0) << 8) | (left > 2 ? bytes[i + 2] : 0);
    result += alphabet[bits >> 18] + alphabet[(bits >> 12) & 63];
    result += left > 1 ? alphabet[(bits >> 6) & 63] : padding;
    result += left > 2 ? alphabet[bits & 63] : padding;
  }
  return result;
}

function hexBytes(string) {
  const { add, done } = collector(string.length >> 1);
  for (let i = 0; i + 1 < string.length; i += 2) {
    const pair = slice(string, i, i + 2);
    if (matches(/^[0-9a-f]{2}$/i, pair) === null) break;
    add(+`0x${pair}`);
  }
  return done();
}

function hexText(bytes) {
  const hex = '0123456789abcdef';
  let result = '';
  for (let i = 0; i < bytes.length; i += 1) result += hex[bytes[i] >> 4] + hex[bytes[i] & 15];
  return result;
}

function unitBytes(string, width) {
  const bytes = new Bytes(string.length * width);
  for (let i = 0; i < string.length; i += 1) {
    const unit = charCodeAt(string, i);
    bytes[i * width] = unit;
    if (width === 2) bytes[i * 2 + 1] = unit >> 8;
  }
  return bytes;
}

function unitText(bytes, width, mask) {
  let result = '';
  for (let i = 0; i + width <= bytes.length; i += width) {
    result += fromCharCode((bytes[i] | (width === 2 ? bytes[i + 1] << 8 : 0)) & mask);
  }
  return result;
}

const latin1 = { read: (string) => unitBytes(string, 1), write: (bytes) => unitText(bytes, 1, 0xff) };
const utf8 = { read: utf8Bytes, write: utf8Text };
const utf16 = { read: (string) => unitBytes(string, 2), write: (bytes) => unitText(bytes, 2, 0xffff) };
const encodings = record({
  utf8,
  'utf-8': utf8,
  utf16le: utf16,
  'utf-16le': utf16,
  ucs2: utf16,
  'ucs-2': utf16,
  latin1,
  binary: latin1,
  ascii: { read: latin1.read, write: (bytes) => unitText(bytes, 1, 0x7f) },
  base64: { read: base64Bytes, write: (bytes) => base64Text(bytes, digits, '=') },
  base64url: { read: base64Bytes, write: (bytes) => base64Text(bytes, urlDigits, '') },
  hex: { read: hexBytes, write: hexText },
});

function encoding(name) {
  const found = encodings[name === undefined ? 'utf8' : toLowerCase(text(name))];
  if (found === undefined) throw new TypeError(`Unknown encoding: ${text(name)}`);
  return found;
}

class Buffer extends Bytes {
  constructor() {
    throw new TypeError('Buffer cannot be constructed here: use Buffer.from');
  }

  static get [Symbol.species]() {
    return Bytes;
  }

  static from(value, encodingName, length) {
    if (isText(value)) return asBuffer(encoding(encodingName).read(value));
    if (value instanceof ArrayBuffer) return asBuffer(new Bytes(value, encodingName, length));
    if (isObject(value)) {
      if (value.type === 'Buffer' && isArray(value.data)) return asBuffer(new Bytes(value.data));
      if (isArray(value) || isView(value)) return asBuffer(new Bytes(value));
      const primitive = value.valueOf();
      if (isText(primitive)) return Buffer.from(primitive, encodingName);
      if (typeof value.length === 'number') return asBuffer(new Bytes(value));
    }
    throw new TypeError('Buffer.from takes a string, an array, an ArrayBuffer or a Buffer');
  }

  static concat(parts) {
    let length = 0;
    for (let i = 0; i < parts.length; i += 1) length += parts[i].length;
    const whole = new Bytes(length);
    length = 0;
    for (let i = 0; i < parts.length; i += 1) {
      setBytes(whole, parts[i], length);
      length += parts[i].length;
    }
    return asBuffer(whole);
  }

  static isBuffer(value) {
    return value instanceof Buffer;
  }

  static byteLength(value, encodingName) {
    return isText(value) ? encoding(encodingName).read(value).length : value.byteLength;
  }

  toString(encodingName, start = 0, end = this.length) {
    return encoding(encodingName).write(subarray(this, start, end));
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

const asBuffer = (bytes) => setPrototypeOf(bytes, Buffer.prototype);
