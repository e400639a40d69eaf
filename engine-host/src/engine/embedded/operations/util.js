// Helpers that jobs reach as `util`, and dates.

const { refused, uuid } = import.meta;

/** Fails, with an error of a code and more properties. */
function throwError(code, { description, fix, ...more } = {}) {
  const error = new Error(description ? `${code}: ${description}` : code);
  throw Object.assign(error, { code }, description && { description }, fix && { fix }, more);
}

function encode(data, options = { parseJson: true }) {
  const text = typeof data === 'string' || !options.parseJson ? data : JSON.stringify(data);
  return Buffer.from(text, 'utf-8').toString('base64');
}

function decode(base64, options = { parseJson: true }) {
  const text = Buffer.from(base64, 'base64').toString('utf-8');
  if (!options.parseJson || !/^[[{]/.test(text)) return text;
  try {
    return JSON.parse(text);
  } catch (error) {
    console.log(error.message);
    return text;
  }
}

const makeBasicAuthHeader = (username, password) => ({
  Authorization: `Basic ${encode(`${username}:${password}`)}`,
});

function assertRelativeUrl(path) {
  if (!/https?:\/\//.test(path)) return;
  throw Object.assign(new Error('UNEXPECTED_ABSOLUTE_URL'), {
    code: 'UNEXPECTED_ABSOLUTE_URL',
    description: 'A URL was given (https://...) where only a path (/a/b/c) can be used',
    url: path,
    fix: 'Leave out protocol and host, or use a function for any address.',
  });
}

const expandReferences = (state, ...values) => values.map((value) => resolved(state, value));

function normalizeOauthConfig(configuration) {
  const { access_token, accessToken } = configuration;
  if (access_token && accessToken) {
    throw new Error('The configuration has both "accessToken" and "access_token"; OAuth2 credentials have "access_token" only.');
  }
  if (access_token) return { ...configuration, accessToken: access_token };
  console.log('There is no "access_token" in state.configuration: is this an OAuth 2.0 credential?');
  return configuration;
}

function logResponse(response) {
  const { method, url, statusCode, duration, query } = response;
  if (!(method && url && duration && statusCode)) return response;
  const pairs = Object.entries(query ?? {}).map((pair) => pair.map(encodeURIComponent).join('=').replaceAll('%20', '+'));
  const line = `${method} ${[url, ...(pairs.length ? [pairs.join('&')] : [])].join('?')} - ${statusCode} in ${duration}ms`;
  if (response instanceof Error) {
    console.error(line);
    console.error('response body: ');
    console.error(response.body || '[no body]');
  } else {
    console.log(line);
  }
  return response;
}

/** The date that a phrase means (`today`, `3 days ago`); anything else as it is. */
function parseDate(phrase, start) {
  const now = new Date();
  const midnight = (daysAgo) => new Date(now.getFullYear(), now.getMonth(), now.getDate() - daysAgo);
  switch (phrase) {
    case 'start':
      return start;
    case 'now':
    case 'end':
      return now;
    case 'today':
      return midnight(0);
    case 'yesterday':
      return midnight(1);
  }
  const ago = /(\d+).*?(hour|day)s? ago$/.exec(phrase);
  if (ago === null) return phrase;
  return ago[2] === 'day' ? midnight(Number(ago[1])) : new Date(now.getTime() - Number(ago[1]) * 3_600_000);
}

/** A date as the log tells it: `09:05 2 Jan 2020 (GMT+1)`. */
function shownDate(date) {
  const two = (number) => String(number).padStart(2, '0');
  const month = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ')[date.getMonth()];
  const offset = date.getTimezoneOffset();
  const minutes = Math.abs(offset) % 60;
  const zone = `${offset > 0 ? '-' : '+'}${Math.floor(Math.abs(offset) / 60)}${minutes ? `:${two(minutes)}` : ''}`;
  return `${two(date.getHours())}:${two(date.getMinutes())} ${date.getDate()} ${month} ${date.getFullYear()} (GMT${zone})`;
}

const util = {
  ERROR_ABSOLUTE_URL: 'Absolute URLs not supported',
  ERROR_URL_MISMATCH: 'Target origin does not match baseUrl origin',
  assertRelativeUrl,
  decode,
  encode,
  expandReferences,
  logResponse,
  makeBasicAuthHeader,
  normalizeOauthConfig,
  parseDate,
  throwError,
  uuid,
};
for (const name of ['del', 'enableMockClient', 'encodeFormBody', 'generateAgentKey', 'get', 'parseUrl', 'post', 'put', 'request']) {
  util[name] = () => {
    throw refused(`util.${name}`);
  };
}
