// `URL` and `URLSearchParams`, by https://url.spec.whatwg.org, but for names of hosts beyond ASCII, which are refused.
// Evaluates to a function that gives both.

() => {
  'use strict';

  const SPECIAL = { 'http:': '80', 'https:': '443', 'ws:': '80', 'wss:': '443', 'ftp:': '21', 'file:': '' };
  const isSpecial = (scheme) => Object.hasOwn(SPECIAL, scheme);

  const C0 = (code) => code <= 0x1f || code > 0x7e;
  const set = (parent, characters) => (code) => parent(code) || characters.includes(String.fromCharCode(code));
  const FRAGMENT = set(C0, ' "<>`');
  const QUERY = set(C0, ' "#<>');
  const SPECIAL_QUERY = set(QUERY, "'");
  const PATH = set(QUERY, '?^`{}');
  const USER = set(PATH, '/:;=@[\\]|');

  const bytesOf = (text) => [...new TextEncoder().encode(text)];
  const hex = (byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  const encode = (text, isEncoded) =>
    Array.from(text, (character) =>
      isEncoded(character.codePointAt(0)) ? bytesOf(character).map(hex).join('') : character,
    ).join('');
  const decode = (text) => {
    const bytes = [];
    for (let at = 0; at < text.length; at += 1) {
      const found = text[at] === '%' && /^[0-9a-f]{2}/i.exec(text.slice(at + 1, at + 3));
      if (found) {
        bytes.push(parseInt(found[0], 16));
        at += 2;
      } else {
        const character = String.fromCodePoint(text.codePointAt(at));
        bytes.push(...bytesOf(character));
        at += character.length - 1;
      }
    }
    return new Uint8Array(bytes);
  };

  const FORBIDDEN = /[\0\t\n\r #/:<>?@[\\\]^|]/;
  const FORBIDDEN_DOMAIN = /[\0-\x20#%/:<>?@[\\\]^|\x7f]/;

  const ipv4Number = (text) => {
    if (text === '') return undefined;
    if (/^0x[0-9a-f]*$/i.test(text)) return text.length === 2 ? 0 : parseInt(text.slice(2), 16);
    if (/^0[0-7]+$/.test(text)) return parseInt(text, 8);
    return /^[0-9]+$/.test(text) && !/^0[0-9]/.test(text) ? parseInt(text, 10) : undefined;
  };

  /** An address, if the host ends in a number; null if it is a bad one. */
  const ipv4 = (host) => {
    const parts = host.split('.');
    if (parts.length > 1 && parts.at(-1) === '') parts.pop();
    const last = parts.at(-1);
    if (!/^[0-9]+$/.test(last) && !/^0x[0-9a-f]*$/i.test(last)) return undefined;
    if (parts.length > 4) return null;
    const numbers = parts.map(ipv4Number);
    if (numbers.includes(undefined)) return null;
    if (numbers.slice(0, -1).some((number) => number > 255) || numbers.at(-1) >= 256 ** (5 - numbers.length)) return null;
    const address = numbers.slice(0, -1).reduce((sum, number, at) => sum + number * 256 ** (3 - at), numbers.at(-1));
    return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.');
  };

  const ipv6 = (text) => {
    let source = text;
    const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text);
    if (dotted) {
      const numbers = dotted.slice(2).map(Number);
      if (numbers.some((number) => number > 255) || dotted.slice(2).some((it) => /^0\d/.test(it))) return null;
      const piece = (at) => (numbers[at] * 256 + numbers[at + 1]).toString(16);
      source = `${dotted[1]}${piece(0)}:${piece(2)}`;
    }
    const halves = source.split('::');
    if (halves.length > 2) return null;
    const pieces = halves.map((half) => (half === '' ? [] : half.split(':')));
    if (pieces.flat().some((piece) => !/^[0-9a-f]{1,4}$/i.test(piece))) return null;
    const count = pieces.flat().length;
    if (halves.length === 1 ? count !== 8 : count > 7) return null;
    const zeros = new Array(8 - count).fill('0');
    const all = (halves.length === 1 ? pieces[0] : [...pieces[0], ...zeros, ...pieces[1]]).map((it) => parseInt(it, 16));
    let [best, length] = [-1, 1];
    for (let at = 0; at < 8; at += 1) {
      let end = at;
      while (end < 8 && all[end] === 0) end += 1;
      if (end - at > length) [best, length] = [at, end - at];
    }
    const shown = all.map((it) => it.toString(16));
    if (best < 0) return `[${shown.join(':')}]`;
    return `[${shown.slice(0, best).join(':')}::${shown.slice(best + length).join(':')}]`;
  };

  /** A host as it is kept; null if it is none. */
  const parseHost = (text, special) => {
    if (text.startsWith('[')) return text.endsWith(']') ? ipv6(text.slice(1, -1)) : null;
    if (!special) return FORBIDDEN.test(text) ? null : encode(text, C0);
    const name = new TextDecoder().decode(decode(text)).toLowerCase();
    if (name === '' || /[^\0-\x7f]/.test(name) || FORBIDDEN_DOMAIN.test(name)) return null;
    if (name.split('.').some((label) => label.startsWith('xn--') && !/^xn--[a-z0-9-]*[a-z0-9]$/.test(label))) return null;
    const address = ipv4(name);
    return address === undefined ? name : address;
  };

  const isDrive = (text) => /^[a-z][:|]$/i.test(text);
  const startsWithDrive = (text) => /^[a-z][:|]([/\\?#]|$)/i.test(text);
  const isDot = (segment) => /^(\.|%2e)$/i.test(segment);
  const isDots = (segment) => /^(\.|%2e){2}$/i.test(segment);

  const shorten = (url) => {
    if (url.scheme === 'file:' && url.path.length === 1 && /^[a-z]:$/i.test(url.path[0])) return;
    url.path.pop();
  };

  /** Adds the segments of a path, which begins with its first slash if it has one. */
  const addPath = (url, text, isBegun) => {
    const special = isSpecial(url.scheme);
    const segments = (special ? text.replace(/\\/g, '/') : text).split('/');
    if (isBegun) segments.shift();
    segments.forEach((segment, at) => {
      const isLast = at === segments.length - 1;
      if (isDots(segment)) {
        shorten(url);
        if (isLast) url.path.push('');
      } else if (isDot(segment)) {
        if (isLast) url.path.push('');
      } else {
        let kept = encode(segment, PATH);
        if (url.scheme === 'file:' && url.path.length === 0 && isDrive(kept)) kept = `${kept[0]}:`;
        url.path.push(kept);
      }
    });
  };

  /** Cuts a text into what is before the query, the query and the fragment. */
  const cut = (text) => {
    const [, before, query, fragment] = /^([^?#]*)(?:\?([^#]*))?(?:#([^]*))?$/.exec(text);
    return [before, query, fragment];
  };

  const setQuery = (url, query) => {
    url.query = query === undefined ? null : encode(query, isSpecial(url.scheme) ? SPECIAL_QUERY : QUERY);
  };
  const setFragment = (url, fragment) => {
    url.fragment = fragment === undefined ? null : encode(fragment, FRAGMENT);
  };

  const setPort = (url, text) => {
    if (!/^[0-9]*$/.test(text) || Number(text) > 65535) return false;
    const port = text === '' ? '' : String(Number(text));
    url.port = port === SPECIAL[url.scheme] ? '' : port;
    return true;
  };

  /** What is between two slashes and the path. */
  const setAuthority = (url, text) => {
    const special = isSpecial(url.scheme);
    const at = text.lastIndexOf('@');
    if (at >= 0) {
      const [, user, password] = /^([^:]*)(?::([^]*))?$/.exec(text.slice(0, at));
      [url.username, url.password] = [encode(user, USER), encode(password ?? '', USER)];
      if (at === text.length - 1) return false;
    }
    const [, host, port] = /^(\[[^\]]*\]|[^:]*)(?::([^]*))?$/.exec(text.slice(at + 1)) ?? [];
    if (host === undefined || (host === '' && (special || port !== undefined))) return false;
    url.host = host === '' ? '' : parseHost(host, special);
    return url.host !== null && (port === undefined || setPort(url, port));
  };

  const isOpaque = (url) => typeof url.path === 'string';
  const copyOf = (url) => ({ ...url, path: isOpaque(url) ? url.path : [...url.path] });

  /** A URL in its parts; null if it is none. */
  const parse = (input, base) => {
    const text = input.replace(/^[\0-\x20]+|[\0-\x20]+$/g, '').replace(/[\t\n\r]/g, '');
    const url = { scheme: '', username: '', password: '', host: null, port: '', path: [], query: null, fragment: null };
    const found = /^([a-z][a-z0-9+.-]*):/i.exec(text);
    let rest = text;
    const finish = () => (url.path.length === 0 && !isOpaque(url) && isSpecial(url.scheme) ? { ...url, path: [''] } : url);

    if (found !== null) {
      url.scheme = found[0].toLowerCase();
      rest = text.slice(found[0].length);
      if (url.scheme === 'file:') return parseFile(url, rest, base?.scheme === 'file:' ? base : undefined);
      if (isSpecial(url.scheme)) {
        if (base?.scheme === url.scheme && !/^[/\\]{2}/.test(rest)) return parseRelative(url, rest, base);
        rest = `//${rest.replace(/^[/\\]*/, '')}`;
      } else if (!rest.startsWith('/')) {
        const [path, query, fragment] = cut(rest);
        let kept = encode(path, C0);
        if (query !== undefined || fragment !== undefined) kept = kept.replace(/ $/, '%20');
        url.path = kept;
        setQuery(url, query);
        setFragment(url, fragment);
        return url;
      }
      const [before, query, fragment] = cut(rest);
      setQuery(url, query);
      setFragment(url, fragment);
      return parseHierarchy(url, before, finish);
    }
    if (base === undefined) return null;
    if (isOpaque(base)) {
      if (!rest.startsWith('#')) return null;
      const same = copyOf(base);
      setFragment(same, rest.slice(1));
      return same;
    }
    url.scheme = base.scheme;
    return base.scheme === 'file:' ? parseFile(url, rest, base) : parseRelative(url, rest, base);
  };

  function parseHierarchy(url, before, finish) {
    const slash = isSpecial(url.scheme) ? /^[/\\]{2}/ : /^\/\//;
    let path = before;
    if (slash.test(before)) {
      const end = before.slice(2).search(isSpecial(url.scheme) ? /[/\\]/ : /\//);
      const authority = end < 0 ? before.slice(2) : before.slice(2, end + 2);
      path = end < 0 ? '' : before.slice(end + 2);
      if (!setAuthority(url, authority)) return null;
    }
    if (path !== '') addPath(url, path, true);
    return finish();
  }

  function parseRelative(url, rest, base) {
    const special = isSpecial(url.scheme);
    const [before, query, fragment] = cut(rest);
    const finish = () => (url.path.length === 0 && special ? { ...url, path: [''] } : url);
    if ((special ? /^[/\\]{2}/ : /^\/\//).test(before)) {
      setQuery(url, query);
      setFragment(url, fragment);
      const authority = special ? `//${before.replace(/^[/\\]*/, '')}` : before;
      return parseHierarchy(url, authority, finish);
    }
    const { username, password, host, port } = base;
    Object.assign(url, { username, password, host, port });
    if ((special ? /^[/\\]/ : /^\//).test(before)) addPath(url, before, true);
    else {
      url.path = [...base.path];
      if (before !== '') {
        shorten(url);
        addPath(url, before, false);
      }
    }
    if (before === '' && query === undefined) url.query = base.query;
    else setQuery(url, query);
    setFragment(url, fragment);
    return finish();
  }

  function parseFile(url, rest, base) {
    const [before, query, fragment] = cut(rest);
    url.host = '';
    setQuery(url, query);
    setFragment(url, fragment);
    const finish = () => (url.path.length === 0 ? { ...url, path: [''] } : url);
    if (/^[/\\]{2}/.test(before)) {
      const end = before.slice(2).search(/[/\\]/);
      const name = end < 0 ? before.slice(2) : before.slice(2, end + 2);
      if (isDrive(name)) {
        addPath(url, before.slice(1), true);
        return finish();
      }
      if (name !== '') {
        const host = parseHost(name, true);
        if (host === null) return null;
        url.host = host === 'localhost' ? '' : host;
      }
      if (end >= 0) addPath(url, before.slice(end + 2), true);
      return finish();
    }
    if (/^[/\\]/.test(before)) {
      if (base !== undefined) {
        url.host = base.host;
        if (!startsWithDrive(before.slice(1)) && /^[a-z]:$/i.test(base.path[0] ?? '')) url.path.push(base.path[0]);
      }
      addPath(url, before, true);
      return finish();
    }
    if (base === undefined) {
      if (before !== '') addPath(url, before, false);
      return finish();
    }
    [url.host, url.path] = [base.host, [...base.path]];
    if (before === '') {
      if (query === undefined) url.query = base.query;
      return finish();
    }
    if (startsWithDrive(before)) url.path = [];
    else shorten(url);
    addPath(url, before, false);
    return finish();
  }

  const pathOf = (url) => (isOpaque(url) ? url.path : url.path.map((segment) => `/${segment}`).join(''));
  const write = (url) => {
    let text = url.scheme;
    if (url.host !== null) {
      text += '//';
      if (url.username !== '' || url.password !== '') {
        text += `${url.username}${url.password === '' ? '' : `:${url.password}`}@`;
      }
      text += `${url.host}${url.port === '' ? '' : `:${url.port}`}`;
    } else if (!isOpaque(url) && url.path.length > 1 && url.path[0] === '') text += '/.';
    text += pathOf(url);
    if (url.query !== null) text += `?${url.query}`;
    if (url.fragment !== null) text += `#${url.fragment}`;
    return text;
  };

  const plus = (text) =>
    encode(text, (code) => code !== 0x20 && !/[A-Za-z0-9*\-._]/.test(String.fromCodePoint(code))).replace(/ /g, '+');
  const unplus = (text) => new TextDecoder('utf-8', { ignoreBOM: true }).decode(decode(text.replace(/\+/g, ' ')));
  const pairsOf = (text) =>
    text
      .split('&')
      .filter((part) => part !== '')
      .map((part) => {
        const at = part.indexOf('=');
        return (at < 0 ? [part, ''] : [part.slice(0, at), part.slice(at + 1)]).map(unplus);
      });

  const wellFormed = (value) => String(value).toWellFormed?.() ?? String(value);

  let connect;

  class URLSearchParams {
    #pairs = [];

    #changed = () => {};

    static {
      connect = (params, text, changed) => {
        params.#pairs = pairsOf(text);
        params.#changed = changed;
      };
    }

    constructor(init = '') {
      if (typeof init === 'object' && init !== null && typeof init[Symbol.iterator] === 'function') {
        this.#pairs = [...init].map((pair) => {
          const both = [...pair];
          if (both.length !== 2) throw new TypeError('Each query pair must be an iterable [name, value] tuple');
          return both.map(wellFormed);
        });
      } else if (typeof init === 'object' && init !== null) {
        this.#pairs = Object.entries(init).map((pair) => pair.map(wellFormed));
      } else this.#pairs = pairsOf(wellFormed(init).replace(/^\?/, ''));
    }

    get size() {
      return this.#pairs.length;
    }

    append(name, value) {
      this.#pairs.push([wellFormed(name), wellFormed(value)]);
      this.#changed();
    }

    delete(name, value) {
      this.#pairs = this.#pairs.filter(([it, own]) => it !== String(name) || (value !== undefined && own !== String(value)));
      this.#changed();
    }

    get(name) {
      return this.#pairs.find(([it]) => it === String(name))?.[1] ?? null;
    }

    getAll(name) {
      return this.#pairs.filter(([it]) => it === String(name)).map(([, value]) => value);
    }

    has(name, value) {
      return this.#pairs.some(([it, own]) => it === String(name) && (value === undefined || own === String(value)));
    }

    set(name, value) {
      const at = this.#pairs.findIndex(([it]) => it === String(name));
      if (at < 0) this.#pairs.push([wellFormed(name), wellFormed(value)]);
      else {
        this.#pairs[at][1] = wellFormed(value);
        this.#pairs = this.#pairs.filter(([it], other) => it !== String(name) || other === at);
      }
      this.#changed();
    }

    sort() {
      this.#pairs.sort(([a], [b]) => (a < b ? -1 : Number(a > b)));
      this.#changed();
    }

    forEach(callback, self) {
      for (const [name, value] of this.#pairs) callback.call(self, value, name, this);
    }

    *entries() {
      for (const [name, value] of this.#pairs) yield [name, value];
    }

    *keys() {
      for (const [name] of this.#pairs) yield name;
    }

    *values() {
      for (const [, value] of this.#pairs) yield value;
    }

    [Symbol.iterator]() {
      return this.entries();
    }

    toString() {
      return this.#pairs.map(([name, value]) => `${plus(name)}=${plus(value)}`).join('&');
    }
  }

  class URL {
    #url;

    #params = new URLSearchParams();

    constructor(input, base) {
      const above = base === undefined ? undefined : parse(wellFormed(base));
      const url = above === null ? null : parse(wellFormed(input), above);
      if (url === null) throw Object.assign(new TypeError('Invalid URL'), { code: 'ERR_INVALID_URL', input: String(input) });
      this.#url = url;
      this.#read();
    }

    static canParse(input, base) {
      return URL.parse(input, base) !== null;
    }

    static parse(input, base) {
      try {
        return new URL(input, base);
      } catch {
        return null;
      }
    }

    #read() {
      connect(this.#params, this.#url.query ?? '', () => {
        const query = this.#params.toString();
        this.#url.query = query === '' ? null : query;
      });
    }

    get href() {
      return write(this.#url);
    }

    set href(text) {
      this.#url = new URL(text).#url;
      this.#read();
    }

    get origin() {
      const { scheme } = this.#url;
      if (scheme === 'blob:') return URL.parse(pathOf(this.#url))?.origin ?? 'null';
      return isSpecial(scheme) && scheme !== 'file:' ? `${scheme}//${this.host}` : 'null';
    }

    get protocol() {
      return this.#url.scheme;
    }

    set protocol(text) {
      const scheme = /^([a-z][a-z0-9+.-]*)(:|$)/i.exec(text)?.[1].toLowerCase();
      if (scheme === undefined || isSpecial(`${scheme}:`) !== isSpecial(this.#url.scheme)) return;
      if (scheme === 'file' && (this.#url.username !== '' || this.#url.password !== '' || this.#url.port !== '')) return;
      if (this.#url.scheme === 'file:' && this.#url.host === '') return;
      this.#url.scheme = `${scheme}:`;
      if (this.#url.port === SPECIAL[this.#url.scheme]) this.#url.port = '';
    }

    #takesUser() {
      return this.#url.host !== null && this.#url.host !== '' && this.#url.scheme !== 'file:';
    }

    get username() {
      return this.#url.username;
    }

    set username(text) {
      if (this.#takesUser()) this.#url.username = encode(wellFormed(text), USER);
    }

    get password() {
      return this.#url.password;
    }

    set password(text) {
      if (this.#takesUser()) this.#url.password = encode(wellFormed(text), USER);
    }

    get host() {
      return `${this.hostname}${this.#url.port === '' ? '' : `:${this.#url.port}`}`;
    }

    set host(text) {
      const [, name, port] = /^(\[[^\]]*\]|[^:/?#\\]*)(?::([0-9]*))?/.exec(String(text).replace(/[\t\n\r]/g, ''));
      if (this.#setHost(name) && port) this.port = port;
    }

    #setHost(name) {
      if (isOpaque(this.#url)) return false;
      const special = isSpecial(this.#url.scheme);
      if (name === '' && special && this.#url.scheme !== 'file:') return false;
      const host = name === '' ? '' : parseHost(name, special);
      if (host !== null) this.#url.host = host;
      return host !== null;
    }

    get hostname() {
      return this.#url.host ?? '';
    }

    set hostname(text) {
      const plain = String(text).replace(/[\t\n\r]/g, '');
      const [name] = /^(\[[^\]]*\]|[^:/?#\\]*)/.exec(plain);
      // A port is not for this one.
      if (plain[name.length] !== ':') this.#setHost(name);
    }

    get port() {
      return this.#url.port;
    }

    set port(text) {
      if (!this.#takesUser()) return;
      const digits = /^[0-9]*/.exec(String(text).replace(/[\t\n\r]/g, ''))[0];
      if (digits !== '' || String(text) === '') setPort(this.#url, digits);
    }

    get pathname() {
      return pathOf(this.#url);
    }

    set pathname(text) {
      if (isOpaque(this.#url)) return;
      this.#url.path = [];
      const path = wellFormed(text).replace(/[\t\n\r]/g, '').replace(/\?/g, '%3F').replace(/#/g, '%23');
      const isBegun = isSpecial(this.#url.scheme) ? /^[/\\]/.test(path) : path.startsWith('/');
      if (path !== '' || isSpecial(this.#url.scheme)) addPath(this.#url, path, isBegun);
    }

    get search() {
      return this.#url.query === null || this.#url.query === '' ? '' : `?${this.#url.query}`;
    }

    set search(text) {
      const query = wellFormed(text).replace(/[\t\n\r]/g, '').replace(/^\?/, '');
      setQuery(this.#url, String(text) === '' ? undefined : query.replace(/#/g, '%23'));
      this.#read();
    }

    get searchParams() {
      return this.#params;
    }

    get hash() {
      return this.#url.fragment === null || this.#url.fragment === '' ? '' : `#${this.#url.fragment}`;
    }

    set hash(text) {
      const fragment = wellFormed(text).replace(/[\t\n\r]/g, '').replace(/^#/, '');
      setFragment(this.#url, String(text) === '' ? undefined : fragment);
    }

    toString() {
      return this.href;
    }

    toJSON() {
      return this.href;
    }
  }

  return { URL, URLSearchParams };
};
