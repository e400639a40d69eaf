// The expressions in JSON paths: `[?(@.age > 5 && @.name != 'x')]`, `[(@.length - 1)]`. A small language of its own:
// values, members, methods of them, and operators. There is no way from it to other code.

/** Operators of two operands, those that bind least first. */
const operators = [
  ['||'],
  ['&&'],
  ['|'],
  ['^'],
  ['&'],
  ['===', '!==', '==', '!='],
  ['<=', '>=', '<', '>'],
  ['<<', '>>>', '>>'],
  ['+', '-'],
  ['*', '/', '%'],
];

const operations = {
  '||': (a, b) => a() || b(),
  '&&': (a, b) => a() && b(),
  '|': (a, b) => a() | b(),
  '^': (a, b) => a() ^ b(),
  '&': (a, b) => a() & b(),
  '===': (a, b) => a() === b(),
  '!==': (a, b) => a() !== b(),
  '==': (a, b) => a() == b(),
  '!=': (a, b) => a() != b(),
  '<=': (a, b) => a() <= b(),
  '>=': (a, b) => a() >= b(),
  '<': (a, b) => a() < b(),
  '>': (a, b) => a() > b(),
  '<<': (a, b) => a() << b(),
  '>>': (a, b) => a() >> b(),
  '>>>': (a, b) => a() >>> b(),
  '+': (a, b) => a() + b(),
  '-': (a, b) => a() - b(),
  '*': (a, b) => a() * b(),
  '/': (a, b) => a() / b(),
  '%': (a, b) => a() % b(),
};

const unaryOperations = {
  '!': (a) => !a,
  '-': (a) => -a,
  '+': (a) => +a,
  '~': (a) => ~a,
  typeof: (a) => typeof a,
  void: () => undefined,
};

/** A number, a text in either kind of quotes, a name (`@` only before what may follow it), or a sign. */
const token =
  /\s*(?:((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)|'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([A-Za-z_$][\w$]*|@(?:property|parentProperty|parent|root|path)\b|@(?=[.\s)[]))|(===|!==|==|!=|<=|>=|&&|\|\||>>>|<<|>>|[-+*/%<>!~&|^?:;()[\].,]))/isy;

const constants = { true: true, false: false, null: null, undefined: undefined };

const escapes = { n: '\n', r: '\r', t: '\t', b: '\b', f: '\f', v: '\v' };

/** What expressions may see of a value only if it is a key of its own. */
const hidden = ['constructor', '__proto__', '__defineGetter__', '__defineSetter__', '__lookupGetter__', '__lookupSetter__'];

/** The names that begin with `@`, of an item (`@`) and the node whose surroundings they tell. */
const places = {
  '@': (item) => item.value,
  '@property': (item) => item.key,
  '@parent': (_, owner) => owner.parent?.value ?? null,
  '@parentProperty': (_, owner) => owner.key,
  '@root': (item) => item.root,
  '@path': (item) => pathTo(item),
};

/** A function of a node for the expression `source`. */
function parseFilter(source, path) {
  const reader = new FilterReader(source, path);
  const expression = reader.sequence();
  reader.end();
  return (item, owner = item.parent) => {
    try {
      return expression({ item, owner });
    } catch (error) {
      throw new Error(`jsonPath: ${error.message}: ${source}`);
    }
  };
}

class FilterReader {
  constructor(source, path) {
    this.source = source;
    this.path = path;
    this.at = 0;
  }

  fail() {
    throw new Error(`The expression ${this.source} of the JSON path ${this.path} is not understood here`);
  }

  /** The next token, without taking it; undefined at the end. */
  peek() {
    token.lastIndex = this.at;
    const match = token.exec(this.source);
    if (match === null) {
      if (this.source.slice(this.at).trim() !== '') this.fail();
      return undefined;
    }
    const [whole, number, single, double, name, sign] = match;
    return { number, string: single ?? double, name, sign, end: this.at + whole.length };
  }

  take() {
    const found = this.peek() ?? this.fail();
    this.at = found.end;
    return found;
  }

  /** Takes a sign if it is one of these. */
  accept(...signs) {
    const sign = this.peek()?.sign;
    if (!signs.includes(sign)) return undefined;
    this.take();
    return sign;
  }

  expect(sign) {
    if (this.accept(sign) === undefined) this.fail();
  }

  end() {
    if (this.peek() !== undefined) this.fail();
  }

  /** Expressions of which the last one counts. */
  sequence() {
    let last = this.choice();
    while (this.accept(';', ',') !== undefined) {
      const [before, now] = [last, this.choice()];
      last = (scope) => (before(scope), now(scope));
    }
    return last;
  }

  choice() {
    const test = this.binary(0);
    if (this.accept('?') === undefined) return test;
    const yes = this.choice();
    this.expect(':');
    const no = this.choice();
    return (scope) => (test(scope) ? yes(scope) : no(scope));
  }

  binary(level) {
    if (level === operators.length) return this.unary();
    let left = this.binary(level + 1);
    for (let sign; (sign = this.accept(...operators[level])) !== undefined; ) {
      const [a, b] = [left, this.binary(level + 1)];
      const operate = operations[sign];
      left = (scope) => operate(() => a(scope), () => b(scope));
    }
    return left;
  }

  unary() {
    const { sign, name } = this.peek() ?? {};
    const operator = sign ?? name;
    if (!Object.hasOwn(unaryOperations, operator ?? '')) return this.member(this.primary());
    this.take();
    const operand = this.unary();
    const operate = unaryOperations[operator];
    return (scope) => operate(operand(scope));
  }

  primary() {
    const pattern = /\s*\/((?:[^/\\[]|\\.|\[(?:[^\]\\]|\\.)*\])+)\/([a-z]*)/sy;
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.source);
    if (found !== null) {
      this.at += found[0].length;
      return () => new RegExp(found[1], found[2]);
    }
    if (this.accept('(') !== undefined) {
      const inner = this.sequence();
      this.expect(')');
      return inner;
    }
    if (this.accept('[') !== undefined) {
      const items = this.list(']');
      return (scope) => items.map((item) => item(scope));
    }
    const { number, string, name } = this.take();
    if (number !== undefined) return () => Number(number);
    if (string !== undefined) {
      const text = string.replace(/\\(.)/gs, (_, char) => escapes[char] ?? char);
      return () => text;
    }
    if (Object.hasOwn(constants, name ?? '')) return () => constants[name];
    if (!Object.hasOwn(places, name ?? '')) this.fail();
    return ({ item, owner }) => places[name](item, owner ?? item);
  }

  member(first) {
    let value = first;
    for (;;) {
      const owner = value;
      let key;
      if (this.accept('.') !== undefined) {
        const name = this.take().name ?? this.fail();
        key = () => name;
      } else if (this.accept('[') !== undefined) {
        key = this.choice();
        this.expect(']');
      } else {
        return value;
      }
      if (this.accept('(') === undefined) {
        value = (scope) => memberOf(owner(scope), key(scope));
      } else {
        const values = this.list(')');
        value = (scope) => {
          const target = owner(scope);
          return memberOf(target, key(scope)).call(target, ...values.map((item) => item(scope)));
        };
      }
    }
  }

  /** Expressions up to a sign that ends them. */
  list(last) {
    const values = [];
    if (this.accept(last) !== undefined) return values;
    do values.push(this.choice());
    while (this.accept(',') !== undefined);
    this.expect(last);
    return values;
  }
}

/** A member of a value; never the way to code that the value does not have. */
function memberOf(value, key) {
  const name = String(key);
  if (hidden.includes(name) && !Object.hasOwn(value, name)) throw new TypeError(`${name} is not allowed`);
  return value[name];
}
