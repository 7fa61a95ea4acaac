//! The purity of `quota`, `meter` and `units`: no I/O, no clock, no log, no task; only `std`, `core` and `crate::units`.

use std::collections::BTreeSet;

use crate::{
    rust_paths::{Path, named_paths, split_imports},
    rust_tokens::{Token, tokens},
};

/// Modules of the standard library that reach the outer world.
const IMPURE_MODULES: [&str; 8] = ["env", "fs", "io", "net", "os", "process", "thread", "random"];
/// Words that stand for a clock, a task, output or unchecked code wherever they appear.
const IMPURE_WORDS: [&str; 11] =
    ["Instant", "SystemTime", "async", "await", "print", "println", "eprint", "eprintln", "dbg", "unsafe", "extern"];
/// Heads of paths that name no module: the primitive types, and the tools whose lints an attribute names.
const HARMLESS: [&str; 19] = [
    "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "f32", "f64", "bool",
    "char", "str", "clippy", "rustdoc",
];

/// What a file is allowed to know beside `std` and `core`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walls<'a> {
    /// The modules of the crate that may be named.
    pub(crate) modules: &'a [&'a str],
    /// How many modules lie between the crate's root and what `super` means in the file, less one: `quota/mod.rs` 0.
    pub(crate) depth: usize,
}

/// One line for each thing that the source must not name. Test modules may use what they like.
pub(crate) fn breaches(source: &str, walls: Walls<'_>) -> Vec<String> {
    let all = without_tests(&tokens(source));
    let (imports, code) = split_imports(&all);
    let mut known: BTreeSet<&str> = HARMLESS.into_iter().collect();
    known.extend(code.windows(2).filter(|pair| pair[0].text == "mod").map(|pair| pair[1].text.as_str()));
    let mut found: Vec<String> = imports.iter().filter_map(|import| breach(import, &known, walls)).collect();
    known.extend(imports.iter().filter_map(|import| import.name()));
    found.extend(named_paths(&code).iter().filter_map(|path| breach(path, &known, walls)));
    let words = all.iter().filter(|token| IMPURE_WORDS.contains(&token.text.as_str()));
    found.extend(words.map(|token| format!("line {}: `{}`", token.line, token.text)));
    found
}

/// The names of the file modules that a source declares for tests only: `#[cfg(test)] mod walk;`.
pub(crate) fn test_only_modules(source: &str) -> Vec<String> {
    let code = tokens(source);
    let starts = (0..code.len()).filter(|at| is_test_attribute(&code[*at..]));
    starts.filter_map(|at| Some(module_name(&code[at + TEST_ATTRIBUTE.len()..])?.to_owned())).collect()
}

const TEST_ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];

fn is_test_attribute(code: &[Token]) -> bool {
    code.len() >= TEST_ATTRIBUTE.len() && code.iter().zip(TEST_ATTRIBUTE).all(|(token, text)| token.text == text)
}

fn module_name(code: &[Token]) -> Option<&str> {
    let at = code.iter().take(6).position(|token| token.text == "mod")?;
    code.get(at + 1).map(|token| token.text.as_str())
}

/// Leaves out each item under `#[cfg(test)]`: up to its closing brace, or its semicolon.
fn without_tests(code: &[Token]) -> Vec<Token> {
    let mut kept = Vec::with_capacity(code.len());
    let mut at = 0;
    while at < code.len() {
        if !is_test_attribute(&code[at..]) {
            kept.push(code[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0_usize;
        at += TEST_ATTRIBUTE.len();
        while at < code.len() {
            let text = code[at].text.as_str();
            at += 1;
            depth = if text == "{" { depth + 1 } else { depth - usize::from(text == "}" && depth > 0) };
            if depth == 0 && (text == "}" || text == ";") {
                break;
            }
        }
    }
    kept
}

/// The line that says what is wrong with naming this path, if anything is.
fn breach(path: &Path, known: &BTreeSet<&str>, walls: Walls<'_>) -> Option<String> {
    let supers = path.segments.iter().filter(|segment| *segment == "super").count();
    let mut inner = path.segments.iter().skip_while(|segment| ["super", "self"].contains(&segment.as_str()));
    let (first, second) = (inner.next().map_or("", String::as_str), inner.next().map_or("", String::as_str));
    let allowed = match first {
        _ if supers > 0 && supers <= walls.depth => true,
        _ if supers > 0 => supers == walls.depth + 1 && walls.modules.contains(&first),
        _ if path.segments[0] == "self" || first == "Self" => true,
        // Of the net, `core` has the addresses alone: no socket.
        "core" if second == "net" => true,
        "std" | "core" => !IMPURE_MODULES.contains(&second),
        "crate" => walls.modules.contains(&second),
        "alloc" => false,
        _ => known.contains(first) || first.starts_with(char::is_uppercase),
    };
    (!allowed).then(|| format!("line {}: `{}`", path.line, path.segments.join("::")))
}

#[cfg(test)]
mod tests;
