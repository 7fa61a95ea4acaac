//! The paths that a Rust source names: in `use` declarations and outside of them.

use crate::rust_tokens::Token;

/// A path in the source, alias included: `std::fmt::Display`.
#[derive(Debug)]
pub(crate) struct Path {
    /// The names between the colons.
    pub(crate) segments: Vec<String>,
    alias: Option<String>,
    /// Its line, from 1.
    pub(crate) line: usize,
}

impl Path {
    /// The name that an import brings into the file.
    pub(crate) fn name(&self) -> Option<&str> {
        let last = self.segments.iter().rev().find(|segment| *segment != "self");
        self.alias.as_deref().or_else(|| last.map(String::as_str))
    }
}

/// The paths of all `use` declarations, and the code without them.
pub(crate) fn split_imports(code: &[Token]) -> (Vec<Path>, Vec<Token>) {
    let (mut imports, mut rest, mut at) = (Vec::new(), Vec::new(), 0);
    while at < code.len() {
        if code[at].text == "use" {
            at = import_tree(code, at + 1, &[], &mut imports);
        } else {
            rest.push(code[at].clone());
        }
        at += 1;
    }
    (imports, rest)
}

/// Reads one branch of a `use` tree and returns the place of the `;`, `,` or `}` that ends it.
fn import_tree(code: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<Path>) -> usize {
    let mut path = Path { segments: prefix.to_vec(), alias: None, line: code.get(at).map_or(0, |token| token.line) };
    while let Some(token) = code.get(at) {
        match token.text.as_str() {
            ";" | "," | "}" => break,
            "{" => {
                while code.get(at).is_some_and(|token| token.text != "}") {
                    at = import_tree(code, at + 1, &path.segments, found);
                }
                return at + 1;
            }
            "as" => path.alias = code.get(at + 1).map(|token| token.text.clone()),
            _ if token.is_word() && path.alias.is_none() => path.segments.push(token.text.clone()),
            _ => {}
        }
        at += 1;
    }
    if path.segments.len() > prefix.len() || code.get(at.wrapping_sub(1)).is_some_and(|token| token.text == "*") {
        found.push(path);
    }
    at
}

/// Every `a::b::…` outside of imports.
pub(crate) fn named_paths(code: &[Token]) -> Vec<Path> {
    let is_colons = |at: usize| code.get(at).is_some_and(|token| token.text == "::");
    let starts = (0..code.len()).filter(|at| {
        let continues = *at > 1 && is_colons(at - 1) && (code[at - 2].is_word() || code[at - 2].text == ">");
        code[*at].is_word() && !continues && (is_colons(at + 1) || (*at > 0 && is_colons(at - 1)))
    });
    let path_at = |start: usize| {
        let mut segments = vec![code[start].text.clone()];
        let mut at = start + 1;
        while is_colons(at) && code.get(at + 1).is_some_and(Token::is_word) {
            segments.push(code[at + 1].text.clone());
            at += 2;
        }
        Path { segments, alias: None, line: code[start].line }
    };
    starts.map(path_at).collect()
}
