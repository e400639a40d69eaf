//! Loads an adaptor once, in a Node process of its own, to see that it can be and what it exports.

use std::path::Path;
use std::time::Duration;

use super::npm::one_line;
use super::process;

/// How long loading may take.
const LOAD_WITHIN: Duration = Duration::from_secs(60);
/// Begins the line with the names: adaptors may print lines of their own.
const MARK: &str = "\u{1}exports ";

/// Imports what the first argument names, as seen from the folder it works in, and prints the names that a job can
/// import. A CommonJS module shows all its names on its default export only.
const SCRIPT: &str = r#"
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
const [what, mark] = process.argv.slice(1);
const here = pathToFileURL(process.cwd() + '/');
const module = what.endsWith('.cjs') ? { default: createRequire(here)(what) } : await import(what);
const names = new Set(Object.keys(module));
const whole = module.default;
const isModule = whole !== null && (typeof whole === 'object' || typeof whole === 'function');
if (isModule && (names.size === 1 || names.has('module.exports') || whole.__esModule)) {
  Object.keys(whole).forEach(name => names.add(name));
}
const hidden = ['default', '__esModule', 'module.exports'];
const list = [...names].filter(name => !hidden.includes(name)).sort();
process.stdout.write('\n' + mark + JSON.stringify(list) + '\n', () => process.exit(0));
"#;

/// The names that `module` exports. It is named as an import in `folder` would: a package, or the path of a `.cjs` file.
/// An error is the reason in one line.
pub(super) async fn exports(node: &Path, folder: &Path, module: &str) -> Result<Vec<String>, String> {
    // The script is where the import is looked up from.
    let script = folder.join("load.mjs");
    std::fs::write(&script, SCRIPT.replace("process.argv.slice(1)", "process.argv.slice(2)"))
        .map_err(|error| format!("cannot write {}: {error}", script.display()))?;
    let loaded = run(node, folder, &script, module).await;
    // Best effort: it lies in a folder that nobody else looks into.
    let _ = std::fs::remove_file(&script);
    loaded
}

async fn run(node: &Path, folder: &Path, script: &Path, module: &str) -> Result<Vec<String>, String> {
    let mut command = process::command(node, folder, []);
    command.arg(script).args([module, MARK]);
    let output = tokio::time::timeout(LOAD_WITHIN, process::output(command)).await;
    let output = output
        .map_err(|_| format!("loading it took longer than {LOAD_WITHIN:?}"))?
        .map_err(|error| format!("cannot run {}: {error}", node.display()))?;
    let names = output.stdout.lines().find_map(|line| line.strip_prefix(MARK));
    match names.map(serde_json::from_str) {
        Some(Ok(names)) => Ok(names),
        Some(Err(error)) => Err(format!("the names of its exports cannot be read: {error}")),
        None => Err(reason(&output)),
    }
}

fn reason(output: &process::Output) -> String {
    let is_error =
        |line: &&str| line.split(':').next().is_some_and(|name| name.trim_end_matches(']').contains("Error"));
    match output.stderr.lines().find(is_error) {
        Some(line) => one_line(line),
        None if output.status.success() => "it ended the process while it was loaded".to_owned(),
        None => format!("Node ended while it was loaded: {}", output.status),
    }
}
