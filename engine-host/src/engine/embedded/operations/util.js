// Helpers that jobs reach as `util`, and dates.

const { refused, reworded, uuid } = import.meta;

/** Fails, with an error of a code and more properties. */
function throwError(code, { description, fix, ...more } = {}) {
  const error = new Error(description ? `${code}: ${description}` : code);
  throw Object.assign(error, { code }, description && { description }, fix && { fix }, more);
}

function encode(data, options = { parseJson: true }) {
  let text = data;
  if (typeof data !== 'string' && options.parseJson) {
    try {
      text = JSON.stringify(data);
    } catch (error) {
      console.log(reworded(error.message));
    }
  }
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
  Authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`,
});

function assertRelativeUrl(path) {
  if (!/https?:\/\//.test(path)) return;
  throw Object.assign(new Error('UNEXPECTED_ABSOLUTE_URL'), {
    code: 'UNEXPECTED_ABSOLUTE_URL',
    description: 'An absolute URL was provided (https://...) but only a path (/a/b/c) is supported',
    url: path,
    fix: 'Remove the protocol, domain and origin from the provided URL. Maybe you need to use the generic HTTP helper functions instead?',
  });
}

const expandReferences = (state, ...values) => values.map((value) => resolved(state, value));

function normalizeOauthConfig(configuration) {
  const { access_token, accessToken } = configuration;
  if (access_token && accessToken) {
    throw new Error('Both "accessToken" & "access_token" keys found in configuration; please use only "access_token" for OAuth2 credentials.');
  }
  if (access_token) return { ...configuration, accessToken: access_token };
  console.log('Key "access_token" not found in state.configuration;', 'is this a standard OAuth 2.0 JSON credential?');
  if (accessToken) console.log('Using "accessToken" from state.configuration');
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
  const unit = /(hour|day)s? ago$/.exec(phrase)?.[1];
  if (unit === undefined) return phrase;
  const count = /\d+/.exec(phrase);
  if (count === null) {
    console.log(`Error converting ${phrase} into a date`);
    console.log(new TypeError('d.match is not a function or its return value is not iterable'));
    return phrase;
  }
  return unit === 'day' ? midnight(Number(count[0])) : new Date(now.getTime() - Number(count[0]) * 3_600_000);
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
