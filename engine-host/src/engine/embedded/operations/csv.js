// CSV text into records, with the options that the adaptor lets through to csv-parse, and its errors.

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

const csvError = (code, message) => Object.assign(new Error(message), { code });

const isBlank = (char) => char === ' ' || char === '\t' || char === '\n' || char === '\r' || char === '\f';

/** The rows of a text, each an array of its fields, with the line that it ends on. */
class CsvReader {
  constructor(text, options) {
    this.text = options.bom && text.startsWith('\uFEFF') ? text.slice(1) : text;
    this.delimiters = [options.delimiter].flat();
    this.quote = options.quote || undefined;
    this.escape = options.escape || undefined;
    this.options = options;
    this.at = 0;
    this.line = 1;
    this.ending = undefined;
  }

  /** Which of these texts comes next at an index. */
  ahead(texts, at) {
    return texts.find((text) => text !== undefined && this.text.startsWith(text, at));
  }

  /** The end of a row at an index. The first one of all tells what ends the others. */
  endAt(at) {
    const end = this.ahead(this.ending === undefined ? ['\r\n', '\n', '\r'] : [this.ending], at);
    this.ending ??= end;
    return end;
  }

  *rows() {
    const { text, options } = this;
    while (this.at < text.length) {
      const line = this.line;
      const row = this.row();
      const isEmpty = row.fields.length === 1 && row.fields[0] === '' && !row.isQuoted;
      // A text that ends with its last row has no empty one after it.
      if (!isEmpty || (row.hasEnd && !options.skip_empty_lines)) yield { fields: row.fields, line };
    }
  }

  row() {
    const fields = [];
    for (;;) {
      const field = this.field(fields.length);
      fields.push(field.value);
      if (field.end !== 'delimiter') return { fields, hasEnd: field.end === 'row', isQuoted: field.isQuoted };
    }
  }

  /** One field, and what ends it: a delimiter, the row's end, or the text's. */
  field(place) {
    const { text, quote, options } = this;
    let value = '';
    let isQuoted = false;
    const done = (end, length) => {
      this.at += length;
      if (end === 'row') this.line += 1;
      return { value: options.rtrim && !isQuoted ? value.trimEnd() : value, end, isQuoted };
    };
    while (this.at < text.length) {
      const delimiter = this.ahead(this.delimiters, this.at);
      const end = this.endAt(this.at);
      if (quote !== undefined && text.startsWith(quote, this.at)) {
        if (value !== '') this.refuseOpening(value, place);
        value = this.quoted();
        isQuoted = true;
      } else if (end !== undefined) {
        return done('row', end.length);
      } else if (delimiter !== undefined) {
        return done('delimiter', delimiter.length);
      } else {
        const char = text[this.at];
        const isLeading = options.ltrim && value === '' && isBlank(char);
        if (!isLeading && !(options.rtrim && isQuoted)) value += char;
        else if (!isBlank(char)) this.refuseClosing('found non trimable byte after quote', '');
        this.at += 1;
      }
    }
    return done('text', 0);
  }

  /** What stands between quotes; goes to what follows them. */
  quoted() {
    const { text, quote, escape, options } = this;
    let value = '';
    this.at += quote.length;
    while (this.at < text.length) {
      const isQuote = text.startsWith(quote, this.at);
      const after = escape === undefined ? 0 : this.at + escape.length;
      if (after > 0 && after < text.length && text.startsWith(escape, this.at) && (escape !== quote || text.startsWith(quote, after))) {
        value += text[after];
        this.at = after + 1;
      } else if (isQuote) {
        this.at += quote.length;
        const next = text[this.at];
        const isEnd = next === undefined || this.ahead(this.delimiters, this.at) !== undefined || this.endAt(this.at) !== undefined;
        if (!isEnd && !(options.rtrim && isBlank(next))) {
          this.refuseClosing(`got "${next}"`, ' instead of delimiter, record delimiter, trimable character (if activated) or comment');
        }
        return value;
      } else {
        if (text[this.at] === '\n') this.line += 1;
        value += text[this.at];
        this.at += 1;
      }
    }
    throw csvError('CSV_QUOTE_NOT_CLOSED', `Quote Not Closed: the parsing is finished with an opening quote at line ${this.line}`);
  }

  refuseOpening(value, place) {
    const column = this.columns?.[place] ?? place;
    const where = `a quote is found on field ${JSON.stringify(column)} at line ${this.line}`;
    throw csvError('INVALID_OPENING_QUOTE', `Invalid Opening Quote: ${where}, value is ${JSON.stringify(value)}`);
  }

  refuseClosing(what, instead) {
    throw csvError('CSV_INVALID_CLOSING_QUOTE', `Invalid Closing Quote: ${what} at line ${this.line}${instead}`);
  }
}

/** The names of columns; undefined for those that are left out. */
const columnNames = (columns) => columns.map((column) => column?.name ?? (column || undefined));

/** The records of a text: objects by column, or arrays where there are no columns. */
function* csvRecords(text, options) {
  const reader = new CsvReader(text, options);
  if (typeof (options.columns ?? false) === 'object' && !Array.isArray(options.columns)) {
    throw csvError('CSV_INVALID_OPTION_COLUMNS', 'Invalid option columns: expect an array, true or false');
  }
  let names = Array.isArray(options.columns) ? columnNames(options.columns) : undefined;
  let width = names?.length;
  for (const { fields, line } of reader.rows()) {
    if (names === undefined && options.columns) {
      names = fields;
      reader.columns = names;
      width = names.length;
      continue;
    }
    width ??= fields.length;
    if (fields.length !== width) {
      const [code, expected] = names
        ? ['CSV_RECORD_INCONSISTENT_COLUMNS', `columns length is ${width}`]
        : ['CSV_RECORD_INCONSISTENT_FIELDS_LENGTH', `expect ${width}`];
      throw csvError(code, `Invalid Record Length: ${expected}, got ${fields.length} on line ${line}`);
    }
    yield names === undefined
      ? fields
      : Object.fromEntries(names.map((name, i) => [name, fields[i]]).filter(([name]) => name !== undefined));
  }
}

/** Parses CSV: the records become the data, or go to a callback in chunks. */
const parseCsv = (csv, parsingOptions = {}, callback) => async (state) => {
  const [text, given] = resolved(state, [csv, parsingOptions]);
  const known = Object.entries(given).filter(([key]) => key in csvDefaults);
  const options = { ...csvDefaults, ...Object.fromEntries(known) };
  if (options.chunkSize < 1) throw new Error('chunkSize must be at least 1');
  if (typeof text !== 'string') throw new TypeError(`parseCsv takes a text here, not ${kindOf(text)}`);
  let current = state;
  let records = [];
  const flush = async () => {
    current = callback ? await callback(current, records) : composeNextState(current, records);
    records = [];
  };
  for (const record of csvRecords(text, options)) {
    records.push(record);
    if (records.length === options.chunkSize) await flush();
  }
  if (records.length > 0) await flush();
  return current;
};
