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
  for (const record of csvRecords(text, options)) {
    chunk.push(record);
    if (chunk.length === options.chunkSize) await flush();
  }
  if (chunk.length > 0) await flush();
  return current;
};
