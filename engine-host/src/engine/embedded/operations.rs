//! The core operations: what `@openfn/language-common` is in this engine.

/// The names that the core operations have. One test compares them with the module.
pub(super) const PROVIDED: &[&str] = &[
    "alterState",
    "arrayToString",
    "as",
    "asData",
    "assert",
    "beta",
    "chunk",
    "combine",
    "composeNextState",
    "cursor",
    "dataPath",
    "dataValue",
    "debug",
    "each",
    "execute",
    "field",
    "fields",
    "fn",
    "fnIf",
    "group",
    "humanProper",
    "index",
    "join",
    "jsonValue",
    "lastReferenceValue",
    "log",
    "map",
    "merge",
    "parseCsv",
    "referencePath",
    "scrubEmojis",
    "source",
    "sourceValue",
    "splitKeys",
    "toArray",
    "util",
];

/// The names that the published adaptor has and the core operations lack.
pub(super) const LACKING: &[&str] = &["_", "dateFns", "http", "validate"];
