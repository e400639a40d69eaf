// What handlers expect of any JavaScript world and QuickJS does not have. Evaluates to a function that adds it.

(host) => {
  'use strict';

  const define = (name, value) =>
    Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });

  class DOMException extends Error {
    constructor(message = '', name = 'Error') {
      super(message);
      Object.defineProperty(this, 'name', { value: name, configurable: true });
    }
  }

  class Event {
    constructor(type, init = {}) {
      Object.assign(this, { type: String(type), target: null, defaultPrevented: false, cancelable: init.cancelable === true });
    }

    preventDefault() {
      if (this.cancelable) this.defaultPrevented = true;
    }
  }

  class EventTarget {
    #listeners = [];

    addEventListener(type, listener, options) {
      if (listener === null || listener === undefined) return;
      const once = typeof options === 'object' && options !== null && options.once === true;
      const isKnown = this.#listeners.some((it) => it.type === type && it.listener === listener);
      if (!isKnown) this.#listeners.push({ type, listener, once });
    }

    removeEventListener(type, listener) {
      this.#listeners = this.#listeners.filter((it) => it.type !== type || it.listener !== listener);
    }

    dispatchEvent(event) {
      event.target = this;
      const own = this[`on${event.type}`];
      if (typeof own === 'function') own.call(this, event);
      for (const it of this.#listeners.filter(({ type }) => type === event.type)) {
        if (it.once) this.removeEventListener(it.type, it.listener);
        if (typeof it.listener === 'function') it.listener.call(this, event);
        else it.listener.handleEvent(event);
      }
      return !event.defaultPrevented;
    }
  }

  const makeSignal = Symbol('signal');
  const end = (signal, reason) => {
    if (signal.aborted) return;
    signal.aborted = true;
    signal.reason = reason === undefined ? new DOMException('This operation was aborted', 'AbortError') : reason;
    signal.dispatchEvent(new Event('abort'));
  };

  class AbortSignal extends EventTarget {
    aborted = false;

    reason = undefined;

    onabort = null;

    constructor(key) {
      if (key !== makeSignal) throw new TypeError('Illegal constructor');
      super();
    }

    throwIfAborted() {
      if (this.aborted) throw this.reason;
    }

    static abort(reason) {
      const signal = new AbortSignal(makeSignal);
      end(signal, reason);
      return signal;
    }

    static timeout(milliseconds) {
      const signal = new AbortSignal(makeSignal);
      const late = () => end(signal, new DOMException('The operation was aborted due to timeout', 'TimeoutError'));
      globalThis.setTimeout(late, milliseconds);
      return signal;
    }

    static any(signals) {
      const signal = new AbortSignal(makeSignal);
      for (const other of signals) {
        if (other.aborted) end(signal, other.reason);
        else other.addEventListener('abort', () => end(signal, other.reason));
      }
      return signal;
    }
  }

  class AbortController {
    signal = new AbortSignal(makeSignal);

    abort(reason) {
      end(this.signal, reason);
    }
  }

  class TextEncoder {
    get encoding() {
      return 'utf-8';
    }

    encode(text = '') {
      const bytes = [];
      for (const character of String(text)) {
        let code = character.codePointAt(0);
        // Half of a pair.
        if (code >= 0xd800 && code <= 0xdfff) code = 0xfffd;
        if (code < 0x80) bytes.push(code);
        else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
        else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
        else bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
      }
      return new Uint8Array(bytes);
    }
  }

  const bytesOf = (view) => {
    if (view === undefined) return new Uint8Array(0);
    if (ArrayBuffer.isView(view)) return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    if (view instanceof ArrayBuffer) return new Uint8Array(view);
    throw new TypeError('The input must be an ArrayBuffer or a view of one');
  };

  class TextDecoder {
    #fatal;

    #keepsMark;

    #rest = [];

    #isBegun = false;

    constructor(label = 'utf-8', options = {}) {
      if (!/^\s*(unicode-1-1-)?utf-?8\s*$/i.test(label)) {
        throw new RangeError(`The "${label}" encoding is not supported: the embedded engine has UTF-8 alone`);
      }
      this.#fatal = options.fatal === true;
      this.#keepsMark = options.ignoreBOM === true;
    }

    get encoding() {
      return 'utf-8';
    }

    get fatal() {
      return this.#fatal;
    }

    get ignoreBOM() {
      return this.#keepsMark;
    }

    decode(view, { stream = false } = {}) {
      const bytes = [...this.#rest, ...bytesOf(view)];
      this.#rest = [];
      let text = '';
      const bad = () => {
        if (this.#fatal) throw new TypeError('The encoded data was not valid for encoding utf-8');
        text += '\ufffd';
      };
      for (let at = 0; at < bytes.length; ) {
        const first = bytes[at];
        if (first < 0x80) {
          text += String.fromCharCode(first);
          at += 1;
          continue;
        }
        const more = first >= 0xc2 && first < 0xe0 ? 1 : first >= 0xe0 && first < 0xf0 ? 2 : first >= 0xf0 && first < 0xf5 ? 3 : 0;
        if (more === 0) {
          bad();
          at += 1;
          continue;
        }
        let code = first & (0x3f >> more);
        let have = 0;
        // What may follow the first byte, so that nothing is longer than need be or beyond what there is.
        let [least, most] = [0x80, 0xbf];
        if (first === 0xe0) least = 0xa0;
        if (first === 0xed) most = 0x9f;
        if (first === 0xf0) least = 0x90;
        if (first === 0xf4) most = 0x8f;
        while (have < more && at + 1 + have < bytes.length) {
          const next = bytes[at + 1 + have];
          if (next < least || next > most) break;
          [least, most] = [0x80, 0xbf];
          code = (code << 6) | (next & 63);
          have += 1;
        }
        if (have === more) text += String.fromCodePoint(code);
        else if (stream && at + 1 + have === bytes.length) {
          this.#rest = bytes.slice(at);
          break;
        } else bad();
        at += 1 + have;
      }
      if (!this.#isBegun && !this.#keepsMark && text.startsWith('\ufeff')) text = text.slice(1);
      this.#isBegun = stream && (this.#isBegun || text !== '');
      return text;
    }
  }

  const ERRORS = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };

  const structuredClone = (value) => {
    const seen = new Map();
    const refuse = (it) => {
      throw new DOMException(`${typeof it === 'symbol' ? String(it) : `${it}`} could not be cloned.`, 'DataCloneError');
    };
    const copy = (it) => {
      if (typeof it === 'function' || typeof it === 'symbol') refuse(it);
      if (typeof it !== 'object' || it === null) return it;
      if (seen.has(it)) return seen.get(it);
      const keep = (made) => {
        seen.set(it, made);
        return made;
      };
      if (it instanceof Date) return keep(new Date(it.getTime()));
      if (it instanceof RegExp) return keep(new RegExp(it.source, it.flags));
      if (it instanceof Boolean || it instanceof Number || it instanceof String) return keep(Object(it.valueOf()));
      if (it instanceof ArrayBuffer) return keep(it.slice(0));
      if (ArrayBuffer.isView(it)) {
        const buffer = copy(it.buffer);
        const length = it instanceof DataView ? it.byteLength : it.length;
        return keep(new it.constructor(buffer, it.byteOffset, length));
      }
      if (it instanceof Map) {
        const made = keep(new Map());
        for (const [key, inner] of it) made.set(copy(key), copy(inner));
        return made;
      }
      if (it instanceof Set) {
        const made = keep(new Set());
        for (const inner of it) made.add(copy(inner));
        return made;
      }
      if (it instanceof Error) {
        const made = keep(new (ERRORS[it.name] ?? Error)(it.message));
        Object.defineProperty(made, 'stack', { value: it.stack, writable: true, configurable: true });
        if ('cause' in it) made.cause = copy(it.cause);
        return made;
      }
      if (it instanceof Promise || it instanceof WeakMap || it instanceof WeakSet) refuse('#<object>');
      const made = keep(Array.isArray(it) ? new Array(it.length) : {});
      for (const key of Object.keys(it)) made[key] = copy(it[key]);
      return made;
    };
    return copy(value);
  };

  const MOST_RANDOM = 65536;
  const random = (count) => {
    const bytes = host.random(count);
    if (bytes.length !== count) throw new Error('The system has no randomness to give');
    return bytes;
  };
  const crypto = {
    getRandomValues(view) {
      if (!ArrayBuffer.isView(view) || view instanceof DataView || view instanceof Float32Array || view instanceof Float64Array) {
        throw new DOMException('The data argument must be an integer-type TypedArray', 'TypeMismatchError');
      }
      if (view.byteLength > MOST_RANDOM) {
        throw new DOMException(`The requested length exceeds ${MOST_RANDOM} bytes`, 'QuotaExceededError');
      }
      bytesOf(view).set(random(view.byteLength));
      return view;
    },
    randomUUID() {
      const bytes = random(16);
      bytes[6] = (bytes[6] & 0x0f) | 0x40;
      bytes[8] = (bytes[8] & 0x3f) | 0x80;
      const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
      return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
    },
  };

  const fetch = async () => {
    throw new TypeError(
      'fetch is not there on the embedded engine, which has no network: run handlers on Node (--handler-engine node), or use oada',
    );
  };

  const { URL, URLSearchParams } = host.makeUrl();
  const add = { URL, URLSearchParams, AbortController, AbortSignal, DOMException, Event, EventTarget, TextDecoder, TextEncoder, crypto, fetch, structuredClone };
  for (const [name, value] of Object.entries(add)) define(name, value);
};
