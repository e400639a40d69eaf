// CSV text into records, by csv-parse, with the options that the adaptor lets through to it.

const csvDefaults = {
  delimiter: ',',
  quote: '"',
  escape: '"',
  columns: true,
  bom: true,
  trim: true,
  ltrim: true,
  rtrim: true,
  chunkSize: Infinity,
  skip_empty_lines: true,
};

/**
 * The records of a text without quotes and odd white space, by the usual options; undefined where csv-parse has to look at
 * each character, or to say what is wrong. It takes many times as long.
 */
function plainRecords(text, options) {
  const isUsual = Object.keys(csvDefaults).every((key) => key === 'delimiter' || key === 'chunkSize' || options[key] === csvDefaults[key]);
  const { delimiter } = options;
  if (typeof text !== 'string' || !isUsual || !/^[,;|]$/.test(delimiter)) return undefined;
  const body = (text.startsWith('\uFEFF') ? text.slice(1) : text).toWellFormed();
  const end = body.includes('\r\n') ? '\r\n' : '\n';
  if (/["\uFEFF]|[^\S \r\n]|__proto__/.test(body) || /[\r\n]/.test(body.replaceAll(end, ''))) return undefined;
  const rows = body.split(end).filter((line) => line !== '').map((line) => line.split(delimiter).map((field) => field.trim()));
  const [names, ...records] = rows;
  const isOdd = (fields) => fields.length !== names.length || (fields.length === 1 && fields[0] === '');
  if (names === undefined || rows.some(isOdd)) return undefined;
  return records.map((fields) => {
    const record = {};
    for (let i = 0; i < names.length; i += 1) record[names[i]] = fields[i];
    return record;
  });
}

/** The records of a text: objects by column, or arrays where there are no columns. */
function csvRecords(text, options) {
  if (text === undefined || text === null) throw new TypeError(`Cannot read properties of ${text} (reading 'pipe')`);
  const records = [];
  const parser = library('csv-parse').transform(options);
  if (typeof text !== 'string') throw new TypeError('stream.pipe is not a function');
  const parse = (bytes, isEnd) => {
    const error = parser.parse(bytes, isEnd, (record) => records.push(record), () => {});
    if (error !== undefined) throw error;
  };
  parse(Buffer.from(text), false);
  parse(undefined, true);
  return records;
}

/** Parses CSV: the records become the data, or go to a callback in chunks. */
const parseCsv = (csv, parsingOptions = {}, callback) => async (state) => {
  const [text, given] = resolved(state, [csv, parsingOptions]);
  const known = Object.entries(given).filter(([key]) => key in csvDefaults);
  const options = { ...csvDefaults, ...Object.fromEntries(known) };
  if (options.chunkSize < 1) throw new Error('chunkSize must be at least 1');
  let current = state;
  let chunk = [];
  const flush = async () => {
    current = callback ? await callback(current, chunk) : composeNextState(current, chunk);
    chunk = [];
  };
  for (const record of plainRecords(text, options) ?? csvRecords(text, options)) {
    chunk.push(record);
    if (chunk.length === options.chunkSize) await flush();
  }
  if (chunk.length > 0) await flush();
  return current;
};
