// What the published adaptor is made with, evaluated when a job first needs it.

const { load } = import.meta;

const loaded = Object.create(null);

/** What a library exports. */
const library = (name) => (loaded[name] ??= load(name));

const lodash = () => library('lodash').default;

/** All values that a JSON path finds in `json`. */
const findAll = (path, json) => library('jsonpath-plus').JSONPath({ path, json });
