//! Compiles the embedded engine's own JavaScript to bytecode, so that no host has to parse it, and the native part of
//! Node processes that others are forked from.

use std::path::{Path, PathBuf};
use std::process::exit;
use std::{env, fs};

use rquickjs::{Context, Module, Runtime, WriteOptions};

/// Ends the names of the modules, and gives way to a text that a job cannot guess: see `src/engine/embedded/bytecode.rs`.
const PLACEHOLDER: &str = "#placeholder-here";

/// A module: its name, what stands around its files, and the files that it consists of, in order.
struct Source {
    name: &'static str,
    head: &'static str,
    tail: &'static str,
    files: &'static [&'static str],
}

const SOURCES: &[Source] = &[
    Source {
        name: "prelude",
        head: "export default function (host) {\n",
        tail: "}\n",
        files: &[
            "engine/embedded/json_depth.js",
            "prelude/intrinsics.js",
            "prelude/json.js",
            "prelude/errors.js",
            "prelude/console.js",
            "prelude/operations.js",
            "engine/embedded/lockdown.js",
            "engine/embedded/timers.js",
            "engine/embedded/repairs.js",
            "engine/embedded/locale.js",
            "engine/embedded/buffer.js",
            "engine/embedded/hooks.js",
        ],
    },
    Source { name: "@openfn/runtime", head: "", tail: "", files: &["prelude/runtime.js"] },
    Source {
        name: "@openfn/language-common",
        head: "",
        tail: "",
        files: &[
            "engine/embedded/operations/libraries.js",
            "engine/embedded/operations/references.js",
            "engine/embedded/operations/util.js",
            "engine/embedded/operations/csv.js",
            "engine/embedded/operations/operations.js",
        ],
    },
    Source {
        name: "locale",
        head: "",
        tail: "",
        files: &[
            "engine/embedded/locale/options.js",
            "engine/embedded/locale/numbers.js",
            "engine/embedded/locale/dates.js",
            "../vendor/collation.txt",
            "engine/embedded/locale/compare.js",
        ],
    },
    Source {
        name: "@openfn/language-common/jsonpath-plus",
        head: "",
        tail: "",
        files: &["../vendor/jsonpath-plus.js"],
    },
    Source {
        name: "@openfn/language-common/date-fns",
        head: "const { console } = import.meta;\n",
        tail: "",
        files: &["../vendor/date-fns.js"],
    },
    Source {
        name: "@openfn/language-common/csv-parse",
        head: "const { Buffer } = import.meta;\n",
        tail: "",
        files: &["../vendor/csv-parse.js"],
    },
    Source {
        name: "@openfn/language-common/lodash",
        head: "const global = globalThis, module = { exports: {} }, { exports } = module;\n",
        tail: "\nexport default module.exports;\n",
        files: &["../vendor/lodash.js"],
    },
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=BYTECODE_PLACEHOLDER={PLACEHOLDER}");
    let root = directory("CARGO_MANIFEST_DIR").join("src");
    for source in SOURCES {
        let short = source.name.rsplit('/').next().unwrap_or(source.name);
        let target = directory("OUT_DIR").join(format!("{short}.bytecode"));
        let bytecode = compile(source.name, &source.text(&root));
        fs::write(&target, bytecode).unwrap_or_else(|error| panic!("cannot write {}: {error}", target.display()));
    }
    native();
}

/// Makes the library that is preloaded into Node, where its processes can be forked; elsewhere an empty file.
fn native() {
    let source = directory("CARGO_MANIFEST_DIR").join("native/fork.c");
    let library = directory("OUT_DIR").join("fork.so");
    println!("cargo::rerun-if-changed={}", source.display());
    let target = ["ARCH", "OS", "ENV"].map(|name| env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default());
    if target == ["x86_64", "linux", "gnu"] {
        let compiler = cc::Build::new().opt_level(2).pic(true).get_compiler();
        // All that it calls is in Node and in the C library that Node brings along.
        let flags = ["-std=c11", "-Wall", "-Wextra", "-shared", "-nostdlib", "-fno-stack-protector"];
        let mut command = compiler.to_command();
        command.args(flags).args(["-fvisibility=hidden", "-Wl,-z,relro", "-Wl,--build-id=none", "-s", "-o"]);
        let status = command.arg(&library).arg(&source).status();
        if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("failed to compile {}: {status:?}: {command:?}", source.display());
            exit(1);
        }
    } else {
        fs::write(&library, []).unwrap_or_else(|error| panic!("cannot write {}: {error}", library.display()));
    }
    let bytes = fs::read(&library).unwrap_or_else(|error| panic!("cannot read {}: {error}", library.display()));
    println!("cargo::rustc-env=FORK_LIBRARY_HASH={}", fnv(&bytes));
}

/// As `fnv` of `src/engine/node/source.rs`.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Source {
    fn text(&self, root: &Path) -> String {
        let mut text = self.head.to_owned();
        for file in self.files {
            let path = root.join(file);
            println!("cargo::rerun-if-changed={}", path.display());
            let source =
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
            match path.file_stem().filter(|_| path.extension().is_some_and(|kind| kind == "txt")) {
                // A text of the name that its file has. What Rust escapes, JavaScript reads.
                Some(name) => text += &format!("const {} = {source:?};\n", name.display()),
                None => text += &source,
            }
        }
        text + self.tail
    }
}

/// The bytecode without the source, which no job is to see, but with the places that stacks tell.
fn compile(name: &str, source: &str) -> Vec<u8> {
    let runtime = Runtime::new().expect("there is memory for a runtime");
    let context = Context::full(&runtime).expect("there is memory for a context");
    context.with(|ctx| {
        let options = WriteOptions { strip_source: true, ..WriteOptions::default() };
        let module = Module::declare(ctx.clone(), format!("{name}{PLACEHOLDER}"), source);
        module.and_then(|module| module.write(options)).unwrap_or_else(|error| {
            panic!("cannot compile {name}: {error}: {:?}", ctx.catch().as_exception());
        })
    })
}

fn directory(variable: &str) -> PathBuf {
    env::var_os(variable).map(PathBuf::from).unwrap_or_else(|| panic!("cargo did not set {variable}"))
}
