// What a handler is given for the store and for its job's updates, whichever engine runs it: `oada` as `@oada/client` has
// it, and `log`. Evaluates to a function of what the engine has.

(engine) => {
  'use strict';

  const { ask, sleep, describe } = engine;

  /** How often the making of resources is tried that others make, too. */
  const TRIES = 5;
  const CONFLICTS = ['412', '422'];
  const LETTERS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

  /** Asks the worker for something of the store. What is refused is an error with what the store said. */
  const call = async (what) => {
    const answer = JSON.parse(await ask(JSON.stringify(what)));
    if (answer.refused === undefined) return answer;
    const { refused, status, headers, data } = answer;
    const error = Object.assign(new Error(refused), { headers, data });
    Object.defineProperty(error, 'name', { value: 'StoreError', enumerable: false });
    if (status !== null) Object.assign(error, { status, code: String(status) });
    throw error;
  };

  const keysOf = (path) => path.split('/').filter((key) => key !== '');
  const nodeAt = (tree, path) =>
    keysOf(path).reduce((node, key) => (node === undefined ? undefined : (node[key] ?? node['*'])), tree);

  /** A key that sorts by the time: seconds since 2014, then chance. */
  const ksuid = () => {
    let number = BigInt(Math.floor(Date.now() / 1000) - 1_400_000_000);
    for (let word = 0; word < 4; word += 1) number = (number << 32n) | BigInt(Math.floor(Math.random() * 2 ** 32));
    let text = '';
    for (; text.length < 27; number /= 62n) text = LETTERS[Number(number % 62n)] + text;
    return text;
  };

  const KNOWN = {
    get: ['tree'],
    head: [],
    delete: [],
    put: ['data', 'contentType', 'tree', 'etagIfMatch', 'revIfMatch'],
    post: ['data', 'contentType', 'tree'],
    ensure: ['data', 'contentType', 'tree'],
    watch: ['rev', 'type', 'initialMethod', 'watchCallback'],
  };

  /** The request as an object with a path. */
  const wanted = (method, request, data, contentType) => {
    const { path, timeout, headers = {}, ...rest } =
      typeof request === 'string' ? { path: request, data, contentType } : (request ?? {});
    if (typeof path !== 'string') throw new TypeError(`oada.${method} needs a path`);
    for (const key of Object.keys(rest)) {
      if (rest[key] === undefined) delete rest[key];
      else if (!KNOWN[method].includes(key)) throw new TypeError(`oada.${method} does not know ${key}`);
    }
    return { path, timeout, headers, ...rest };
  };

  const send = async (method, { path, timeout, headers, data, contentType }) => {
    const request = { method, path, headers };
    if (data !== undefined) Object.assign(request, { data, contentType });
    const sent = call({ request });
    if (timeout === undefined) return sent;
    const late = new Error(`oada.${method} ${path}: no answer within ${timeout} ms`);
    return Promise.race([
      sent,
      sleep(timeout).then(() => {
        throw Object.assign(late, { name: 'TimeoutError', code: 'REQUEST_TIMEDOUT' });
      }),
    ]);
  };

  const isMissing = ({ code }) => code === '404' || code === '403';

  const exists = async (path) => {
    try {
      return (await send('head', { path, headers: {} })).headers.etag ?? '';
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  };

  /** Makes the resources of a tree that are missing on the way to a path: the deepest first, each linked by the next. */
  const makeWay = async (tree, path) => {
    const keys = keysOf(path);
    let link;
    let linkAt = [];
    for (let length = keys.length; length > 0; length -= 1) {
      const place = `/${keys.slice(0, length).join('/')}`;
      const node = nodeAt(tree, place);
      const contentType = node?._type;
      if (contentType === undefined) continue;
      const etag = await exists(place);
      if (etag !== undefined) {
        if (link === undefined) return;
        const at = `/${linkAt.join('/')}`;
        // An etag does not tell of what came before it: another may have linked one of its own meanwhile.
        if ((await exists(at)) !== undefined) return makeWay(tree, path);
        const headers = etag === '' ? {} : { 'if-match': etag };
        await send('put', { path: at, data: link, contentType, headers });
        return;
      }
      if (node._require) throw new Error(`${place} is to be there already, and is not`);
      const data = linkAt.slice(length).reduceRight((inner, key) => ({ [key]: inner }), link ?? {});
      const _id = `resources/${ksuid()}`;
      await send('put', { path: `/${_id}`, data, contentType, headers: {} });
      link = '_rev' in node ? { _id, _rev: 0 } : { _id };
      linkAt = keys.slice(0, length);
    }
  };

  const ensureTree = async (tree, path) => {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await makeWay(tree, path);
      } catch (error) {
        if (attempt === TRIES || !CONFLICTS.includes(error.code)) throw error;
        await sleep(100 * (attempt ** 2 + Math.random()));
      }
    }
  };

  const typeOf = ({ contentType, data, tree, path }) =>
    contentType ?? data?._type ?? (tree && nodeAt(tree, path)?._type) ?? 'application/json';

  const put = async (request) => {
    const { path, tree, etagIfMatch, revIfMatch, headers, ...rest } = request;
    if (tree !== undefined) await ensureTree(tree, path);
    const match = etagIfMatch ?? revIfMatch;
    const condition = match === undefined ? {} : { 'if-match': [match].flat().join(', ') };
    return send('put', { ...rest, path, headers: { ...headers, ...condition }, contentType: typeOf(request) });
  };

  /** Reads what a tree names below a path, through all links. */
  const getTree = async (path, tree, found) => {
    const body = tree._type === undefined ? found : (await send('get', { path, headers: {} })).data;
    if (typeof body !== 'object' || body === null) return body;
    const isAny = '*' in tree;
    const keys = Object.keys(isAny ? body : tree).filter((key) => {
      const isOwn = ['_meta', '_changes'].includes(key) && !(key in tree);
      return !isOwn && typeof body[key] === 'object' && body[key] !== null;
    });
    await Promise.all(
      keys.map(async (key) => {
        try {
          body[key] = await getTree(`${path}/${key}`, tree[key] ?? tree['*'], body[key]);
        } catch (error) {
          // What cannot be read stays a link.
          if (!isMissing(error)) throw error;
        }
      }),
    );
    return body;
  };

  async function* follow(watch, isTree) {
    try {
      for (;;) {
        const { data } = await call({ next: { watch } });
        if (data === null) return;
        if (isTree) yield data;
        else yield* data;
      }
    } finally {
      await call({ unwatch: { watch } });
    }
  }

  const watch = async ({ path, rev, type, initialMethod = 'head', watchCallback, headers }) => {
    const { data, ...first } = await call({ watch: { path, ...(rev === undefined ? {} : { rev: Number(rev) }) } });
    const changes = follow(data.watch, type === 'tree');
    if (watchCallback !== undefined) {
      void (async () => {
        for await (const change of changes) await watchCallback(change);
      })();
      return String(data.watch);
    }
    const initial = initialMethod === 'get' ? await send('get', { path, headers }) : first;
    return { ...initial, changes };
  };

  const oada = {
    get: async (...request) => {
      const { tree, ...rest } = wanted('get', ...request);
      const answer = await send('get', rest);
      if (tree === undefined) return answer;
      const below = nodeAt(tree, rest.path);
      if (below === undefined) throw new Error('Path mismatch.');
      return { ...answer, data: await getTree(rest.path, { ...below, _type: undefined }, answer.data) };
    },
    head: async (...request) => send('head', wanted('head', ...request)),
    delete: async (...request) => send('delete', wanted('delete', ...request)),
    put: async (...request) => put(wanted('put', ...request)),
    post: async (...request) => {
      const { tree, ...rest } = wanted('post', ...request);
      if (tree !== undefined) return put({ ...rest, tree, path: `${rest.path.replace(/\/$/, '')}/${ksuid()}` });
      return send('post', { ...rest, contentType: typeOf(rest) });
    },
    ensure: async (...request) => {
      const { data = {}, ...rest } = wanted('ensure', ...request);
      try {
        return await send('head', rest);
      } catch (error) {
        if (error.code !== '404') throw error;
        return put({ ...rest, data });
      }
    },
    watch: async (...request) => watch(wanted('watch', ...request)),
    unwatch: async (id) => call({ unwatch: { watch: Number(id) } }),
  };

  /** The update that was asked for last. They are written one after the other: nobody else keeps them in order. */
  let lastUpdate = Promise.resolve();

  const plain = (value) => (value instanceof Error ? describe(value) : value);

  /** Writes an update: a word and more about it, or, as pino has it, more about it and a word. */
  const update = (level, bindings) => async (first, second) => {
    const isTurned = typeof first === 'object' && first !== null;
    const [status, more] = isTurned ? [second ?? (first instanceof Error ? first.message : level), first] : [first, second];
    let meta = plain(more);
    if (Object.keys(bindings).length > 0) {
      meta = typeof meta === 'object' && meta !== null ? { ...bindings, ...meta } : { ...bindings, ...(meta === undefined ? {} : { meta }) };
    }
    const written = lastUpdate.then(() =>
      call({ update: { level, status: String(status), ...(meta === undefined ? {} : { meta }) } }),
    );
    lastUpdate = written.catch(() => {});
    await written;
  };

  const logger = (bindings) => ({
    ...Object.fromEntries(['trace', 'debug', 'info', 'warn', 'error'].map((level) => [level, update(level, bindings)])),
    child: (more = {}) => logger({ ...bindings, ...more }),
  });

  return { oada, log: logger({}), settled: () => lastUpdate };
};
