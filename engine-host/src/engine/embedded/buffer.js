// The part of Node's Buffer that jobs use: conversions between text and bytes. The engine does the conversions:
// `host.encode(text, encoding)` gives a Uint8Array, `host.decode(binary, encoding)` takes a string of a character a byte.

const Bytes = Uint8Array;
const { fromCharCode } = String;
const { isView } = ArrayBuffer;
const setBytes = unbound(Bytes.prototype.set);
const subarray = unbound(Bytes.prototype.subarray);

const encode = (string, encoding = 'utf8') => host.encode(wellFormed(string), text(encoding));

/** A string of the bytes, a character each. */
function binary(bytes) {
  let result = '';
  for (let i = 0; i < bytes.length; i += 4096) {
    result += apply(fromCharCode, undefined, subarray(bytes, i, i + 4096));
  }
  return result;
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

  static byteLength(value, encoding) {
    return isText(value) ? encode(value, encoding).length : value.byteLength;
  }

  toString(encoding = 'utf8', start = 0, end = this.length) {
    return host.decode(binary(subarray(this, start, end)), text(encoding));
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
